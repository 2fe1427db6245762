"""Several hosts on this machine: network namespaces, each with a name and an address, joined by a switch in another."""
import contextlib
import os
import subprocess

import pytest


class Host:
    """Host `number`, from 1: its /etc/hosts is `folder`/hosts, its working folder `home` is in `folder`.

    prefix: put it before a command to run the command there.
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
        """Connect the host to the network."""
        ip('-n', self._switch, 'link', 'add', self._port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', self.space)
        ip('-n', self._switch, 'link', 'set', self._port, 'master', 'bridge')
        ip('-n', self.space, 'address', 'add', self.address + '/24', 'dev', 'eth0')
        for device in 'lo', 'eth0':
            ip('-n', self.space, 'link', 'set', device, 'up')
        self.link('up')

    def link(self, state):
        """'down' unplugs the host, 'up' plugs it in again."""
        ip('-n', self._switch, 'link', 'set', self._port, state)

    def block(self, other):
        """Let nothing from this host reach the `other` one."""
        ip('-n', self.space, 'route', 'add', 'unreachable', other.address)


@contextlib.contextmanager
def several(count, folder):
    """Yield a list of hosts, with their files in `folder`; skips the test if the machine does not allow that."""
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
    subprocess.run(['ip', *arguments], check=True, stderr=subprocess.PIPE, text=True)
