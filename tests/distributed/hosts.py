"""Hosts on this one: network namespaces with a name and an address each, joined by a switch in one more."""
import contextlib
import os
import subprocess

import pytest


class Host:
    """The host of this `number` from 1 on, with `folder`/hosts for its /etc/hosts, and in `folder` its `home`.

    prefix: what to put before a command that is to run there.
    """

    def __init__(self, number, folder):
        self.name, self.address = 'host%d' % number, '10.77.0.%d' % number
        self.space, self._switch, self._port = space(self.name), space('switch'), 'port%d' % number
        self.home = folder / self.name
        self.home.mkdir()
        enter = 'hostname %s && mount --bind %s /etc/hosts && cd %s && exec "$@"' % (
            self.name, folder / 'hosts', self.home)
        self.prefix = ['ip', 'netns', 'exec', self.space, 'unshare', '--uts', 'sh', '-c', enter, 'sh']

    def plug_in(self):
        """Give the host its network."""
        ip('-n', self._switch, 'link', 'add', self._port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', self.space)
        ip('-n', self._switch, 'link', 'set', self._port, 'master', 'bridge')
        ip('-n', self.space, 'address', 'add', self.address + '/24', 'dev', 'eth0')
        for device in 'lo', 'eth0':
            ip('-n', self.space, 'link', 'set', device, 'up')
        self.link('up')

    def link(self, state):
        """'down' cuts the host's cable, 'up' mends it."""
        ip('-n', self._switch, 'link', 'set', self._port, state)

    def bar(self, other):
        """Let nothing of this host get to the `other` one."""
        ip('-n', self.space, 'route', 'add', 'unreachable', other.address)


@contextlib.contextmanager
def several(count, folder):
    """Yield a list of hosts, with their files in `folder`; skips the test where the machine does not allow them."""
    hosts = [Host(number, folder) for number in range(1, count + 1)]
    names = ['127.0.0.1 localhost'] + ['%s %s' % (host.address, host.name) for host in hosts]
    (folder / 'hosts').write_text('\n'.join(names) + '\n')
    spaces = [space('switch')] + [host.space for host in hosts]
    try:
        try:
            for name in spaces:
                ip('netns', 'add', name)
        except FileNotFoundError:
            pytest.skip('no ip command')
        except subprocess.CalledProcessError as error:
            pytest.skip('no network namespaces: ' + error.stderr.strip())
        ip('-n', spaces[0], 'link', 'add', 'bridge', 'type', 'bridge')
        ip('-n', spaces[0], 'link', 'set', 'bridge', 'up')
        for host in hosts:
            host.plug_in()
        yield hosts
    finally:
        for name in spaces:
            with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
                ip('netns', 'delete', name)


def space(name):
    """The name of a network namespace of this process."""
    return 'yolo3-%d-%s' % (os.getpid(), name)


def ip(*arguments):
    """Run the command `ip`; raises CalledProcessError."""
    subprocess.run(['ip', *arguments], check=True, stderr=subprocess.PIPE, universal_newlines=True)
