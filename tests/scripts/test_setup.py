"""The shell scripts: what setup.sh decides on which machine, and the commands that the others run."""
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from yolo3.flags import parse_args

# Stands in for every Python: says it has the version it was made with, makes a venv of itself, installs nothing, and
# writes each command to a log. The FAKE_ variables make it fail.
FAKE_PYTHON = '''
import json, os, sys
version, here, *args = sys.argv[1:]
folder = os.path.dirname(here)
with open(os.environ['FAKE_LOG'], 'a') as log:
    log.write(json.dumps(args) + chr(10))
if args[:2] == ['-c', 'import ensurepip']:
    sys.exit(os.environ.get('FAKE_ENSUREPIP') == 'missing')
if args[0] == '-c' and 'horovod' in args[1]:
    sys.exit(os.environ.get('FAKE_HOROVOD') == 'cannot be loaded')
if args[0] == '-c':
    sys.version_info = tuple(map(int, version.split('.')))
    exec(args[1])
elif args[:2] == ['-m', 'venv']:
    os.makedirs(os.path.join(args[2], 'bin'), exist_ok=True)
    os.makedirs(os.path.join(args[2], 'lib', 'python' + version, 'site-packages', 'nvidia', 'nccl', 'include'))
    with open(here) as source, open(os.path.join(args[2], 'bin', 'python'), 'w') as copy:
        copy.write(source.read())
    os.chmod(os.path.join(args[2], 'bin', 'python'), 0o755)
    if os.environ.get('FAKE_VENV') == 'stopped':
        sys.exit(1)
    open(os.path.join(args[2], 'bin', 'pip'), 'w').close()
elif args == ['-m', 'pip', '--version']:
    sys.exit(not os.path.exists(os.path.join(folder, 'pip')))
elif 'requirements/horovod.txt' in args:
    with open(os.environ['FAKE_LOG'] + '.horovod', 'w') as log:
        json.dump(dict(os.environ), log)
    os.mkdir(os.path.join(folder, '..', 'lib', 'python' + version, 'site-packages', 'horovod'))
    with open(os.path.join(folder, 'horovodrun'), 'w') as script:
        script.write('import sys' + chr(10) + 'from horovod.runner.launch import run_commandline' + chr(10))
    sys.exit(os.environ.get('FAKE_HOROVOD') == 'is not compiled')
elif '-r' in args:
    print('Collecting numpy==1.0\\\\n  Downloading metadata (1 kB)\\\\n  Downloading numpy.whl (17.1 MB)')
    sys.exit(os.environ.get('FAKE_PIP') == 'fails')
elif args[:2] == ['-m', 'pytest']:
    sys.exit(os.environ.get('FAKE_TESTS') == 'fail once' and '--last-failed' not in args)
elif args == ['-m', 'yolo3.mxnet_setup']:
    sys.exit(int(os.environ.get('FAKE_RUNTIME', '0')))
'''.replace('\\\\n', '\\n')

TOOLS = 'bash', 'sh', 'dirname', 'uname', 'cmp', 'cp', 'rm', 'mkdir', 'cat', 'awk', 'env', 'ln', 'timeout'


class Machine:
    """A machine with the project in a folder with a space, and only the programs that a test puts there."""

    def __init__(self, folder):
        self.project = folder / 'my project'
        self.bin = folder / 'bin'
        self.log = folder / 'log'
        self.bin.mkdir()
        for name in TOOLS:
            os.symlink(shutil.which(name), str(self.bin / name))
        shutil.copytree(os.path.join(ROOT, 'scripts'), str(self.project / 'scripts'))
        shutil.copytree(os.path.join(ROOT, '.ci'), str(self.project / '.ci'))
        shutil.copytree(os.path.join(ROOT, 'requirements'), str(self.project / 'requirements'))
        shutil.copy(os.path.join(ROOT, 'requirements.txt'), str(self.project))
        self.fake = folder / 'fake.py'
        self.fake.write_text(FAKE_PYTHON)
        self.platform('Linux', 'x86_64')

    def program(self, name, script):
        path = self.bin / name
        if path.is_symlink():
            path.unlink()
        path.write_text('#!/bin/sh\n%s\n' % script)
        path.chmod(0o755)
        return str(path)

    def platform(self, system, machine):
        self.program('uname', 'case $1 in -s) echo %s ;; -m) echo %s ;; esac' % (system, machine))

    def python(self, name='python3', version='3.11'):
        return self.program(name, 'exec %s -S %s %s "$0" "$@"'
                            % (shlex.quote(sys.executable), shlex.quote(str(self.fake)), version))

    def gpus(self, *capabilities):
        self.program('nvidia-smi', 'printf "%s"' % ''.join(each + '\\n' for each in capabilities))

    def run(self, *args, script='scripts/setup.sh', **environment):
        """CompletedProcess of one script, called from another folder. `self.commands` is what the Pythons were told."""
        self.log.write_text('')
        environment.update(PATH=str(self.bin), FAKE_LOG=str(self.log))
        done = subprocess.run([str(self.bin / 'bash'), str(self.project / script)] + list(args), env=environment,
                              cwd=str(self.bin), capture_output=True, text=True, timeout=60)
        self.commands = [json.loads(line) for line in self.log.read_text().splitlines()]
        return done

    @property
    def installs(self):
        """The arguments of each `pip install -r`, but for Horovod's."""
        return [' '.join(command[3:]) for command in self.commands if command[:3] == ['-m', 'pip', 'install']
                and '-r' in command and HOROVOD not in command]

    @property
    def compiled(self):
        """Whether Horovod was compiled. What it was compiled with is in `horovod`."""
        return any(HOROVOD in command for command in self.commands)

    @property
    def horovod(self):
        return json.loads((self.log.parent / 'log.horovod').read_text())

    def compilers(self, cuda=None):
        for name in ('c++', 'make', 'cmake'):
            self.program(name, '')
        if cuda:
            self.program('nvcc', 'echo "Cuda compilation tools, release %s, V%s.89"' % (cuda, cuda))


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    machine.python()
    return machine


def assert_refused(done, *words):
    assert done.returncode == 2, done
    assert done.stderr.count('\n') == 1, done.stderr
    for word in words:
        assert word in done.stderr


HOROVOD = 'requirements/horovod.txt'
CPU, GPU = '-r requirements/cpu.txt', '-r requirements.txt'


@pytest.mark.parametrize('capabilities, flags, installed, why', [
    (['8.6'], [], GPU, 'GPU set'),
    (['9.0', '7.5'], [], GPU, 'GPU set'),
    (['5.2'], [], GPU, 'GPU set'),
    (['9.0'], [], CPU, 'no kernels for compute capability 9.0'),
    (['12.0'], [], CPU, '12.0'),
    (['3.5'], [], CPU, '3.5'),
    ([], [], CPU, 'no GPU'),
    (None, [], CPU, 'no GPU'),
    (['8.6'], ['--cpu'], CPU, 'CPU set'),
    (None, ['--gpu'], GPU, 'GPU set'),
])
def test_the_set_for_the_gpu(machine, capabilities, flags, installed, why):
    if capabilities is not None:
        machine.gpus(*capabilities)
    done = machine.run(*flags)
    assert done.returncode == 0, done.stderr
    assert machine.installs == [installed]
    assert why in done.stdout + done.stderr


def test_an_nvidia_smi_that_fails_is_no_gpu(machine):
    machine.program('nvidia-smi', 'echo NVIDIA-SMI has failed; exit 9')
    assert 'nvidia-smi shows no GPU' in machine.run().stderr
    assert machine.installs == [CPU]


@pytest.mark.parametrize('platform', [('MINGW64_NT-10.0', 'x86_64'), ('Darwin', 'arm64'), ('Linux', 'i686')])
def test_platforms_without_a_wheel(machine, platform):
    machine.platform(*platform)
    assert_refused(machine.run(), 'no wheel', ' '.join(platform), 'container')
    assert not (machine.project / '.venv').exists()


@pytest.mark.parametrize('platform', [('Linux', 'aarch64'), ('Darwin', 'x86_64')])
def test_platforms_with_the_cpu_build_only(machine, platform):
    machine.platform(*platform)
    machine.gpus('8.6')
    assert_refused(machine.run('--gpu'), '--cpu')
    assert machine.run().returncode == 0
    assert machine.installs == [CPU]


def test_no_python_of_a_fitting_version(machine):
    machine.python(version='3.13')
    machine.python('python3.9', version='3.7')
    assert_refused(machine.run(), '3.8-3.12', 'uv python install 3.11')


def test_no_python_at_all(machine):
    (machine.bin / 'python3').unlink()
    assert_refused(machine.run(), 'uv python install 3.11')


def test_an_older_python_beside_a_too_new_one(machine):
    machine.python(version='3.13')
    machine.python('python3.10', version='3.10')
    done = machine.run()
    assert done.returncode == 0
    assert 'Python 3.10' in done.stdout


def test_a_python_that_uv_installed(machine):
    machine.python(version='3.13')
    path = machine.python('python_of_uv', version='3.11')
    machine.program('uv', 'echo %s' % shlex.quote(path))
    done = machine.run()
    assert done.returncode == 0
    assert 'Python 3.11' in done.stdout


def test_the_python_the_user_names(machine):
    path = machine.python('my', version='3.9')
    assert 'Python 3.9' in machine.run(PYTHON=path).stdout


def test_a_wrong_python_the_user_names(machine):
    path = machine.python('my', version='3.13')
    assert_refused(machine.run(PYTHON=path), 'PYTHON=' + path)


def test_a_python_that_cannot_make_a_venv(machine):
    assert_refused(machine.run(FAKE_ENSUREPIP='missing'), 'apt-get install -y python3.11-venv')


def test_an_unknown_argument(machine):
    assert_refused(machine.run('--tpu'), '--tpu')


def test_a_second_run_installs_nothing(machine):
    machine.run()
    done = machine.run()
    assert done.returncode == 0
    assert not machine.installs
    assert ['-m', 'yolo3.mxnet_setup'] in machine.commands


def test_a_changed_list_is_installed(machine):
    machine.run()
    with open(str(machine.project / 'requirements' / 'common.txt'), 'a') as file:
        file.write('another\n')
    machine.run()
    assert machine.installs == [CPU]


def test_a_venv_from_before_the_lists_were_renamed_is_installed_anew(machine):
    machine.run('--cpu')
    installed = machine.project / '.venv' / 'installed'
    for name in ('common.txt', 'cpu.txt'):
        (installed / name).rename(installed / ('requirements-' + name))
    machine.run()
    assert machine.installs == [CPU] and MAKE_VENV not in machine.commands
    assert sorted(path.name for path in installed.iterdir()) == ['common.txt', 'cpu.txt']


def test_what_the_tests_need_comes_on_top_and_stays(machine):
    machine.run('--cpu')
    machine.run('--dev')
    assert machine.installs == [CPU + ' -r requirements/dev.txt']
    machine.run()
    machine.run('--dev')
    assert not machine.installs


def test_the_set_stays_until_asked_otherwise(machine):
    machine.gpus('8.6')
    machine.run('--cpu')
    machine.run()
    assert not machine.installs
    machine.run('--gpu')
    assert machine.installs == [GPU]
    # The two builds of MXNet share a folder: the one must go before the other comes.
    changes = [command for command in machine.commands if 'uninstall' in command or '-r' in command]
    assert [(command[2], command[-1]) for command in changes] == [('uninstall', 'mxnet'),
                                                                  ('install', 'requirements.txt')]
    machine.gpus()
    machine.run()
    assert not machine.installs
    machine.run('--cpu')
    assert [command[-1] for command in machine.commands if 'uninstall' in command] == ['mxnet-cu112']


MAKE_VENV = ['-m', 'venv', '.venv']


@pytest.mark.parametrize('accident', [{'FAKE_VENV': 'stopped'}, {'FAKE_PIP': 'fails'}])
def test_a_first_run_that_was_stopped_is_begun_anew(machine, accident):
    assert machine.run(**accident).returncode == 1
    left = machine.project / '.venv' / 'half_a_package'
    left.write_text('')
    assert machine.run().returncode == 0
    assert MAKE_VENV in machine.commands
    assert machine.installs == [CPU]
    assert not left.exists()
    machine.run()
    assert MAKE_VENV not in machine.commands


def test_a_venv_of_the_users_own_is_never_removed(machine):
    venv = machine.project / '.venv'
    environment = dict(os.environ, FAKE_LOG=str(machine.log))
    subprocess.run([str(machine.bin / 'python3'), '-m', 'venv', str(venv)], env=environment, check=True)
    assert 'run this again' in machine.run(FAKE_PIP='fails').stderr
    assert machine.run().returncode == 0
    assert MAKE_VENV not in machine.commands
    assert machine.installs == [CPU]


def test_a_venv_without_pip(machine):
    machine.run()
    (machine.project / '.venv' / 'bin' / 'pip').unlink()
    assert_refused(machine.run(), 'with pip', 'rm -rf .venv')


def test_a_venv_of_another_python_is_left_alone(machine):
    machine.run()
    path = machine.python('new', version='3.13')
    shutil.copy(path, str(machine.project / '.venv' / 'bin' / 'python'))
    assert_refused(machine.run(), '.venv', 'rm -rf .venv')


def test_a_venv_whose_python_is_gone(machine):
    machine.run()
    python = machine.project / '.venv' / 'bin' / 'python'
    python.unlink()
    python.symlink_to('/no/such/python')
    assert_refused(machine.run(), 'rm -rf .venv')


def test_horovod_for_the_cpu_set(machine):
    machine.compilers()
    done = machine.run('--cpu', '--horovod')
    assert done.returncode == 0, done.stderr
    assert 'Horovod without NCCL: this is the CPU set' in done.stdout
    assert machine.installs == [CPU] and machine.compiled
    for name, value in dict(HOROVOD_WITH_MXNET='1', HOROVOD_WITHOUT_PYTORCH='1', HOROVOD_WITHOUT_TENSORFLOW='1',
                            HOROVOD_WITH_GLOO='1').items():
        assert machine.horovod[name] == value
    assert 'HOROVOD_GPU_OPERATIONS' not in machine.horovod
    # Another MXNet's Horovod must not come out of pip's cache.
    assert any({HOROVOD, '--no-build-isolation', '--no-cache-dir'} <= set(command) for command in machine.commands)
    # The build's Pythons prepare what MXNet needs before they import it.
    with open(os.path.join(machine.horovod['PYTHONPATH'], 'sitecustomize.py')) as file:
        assert file.read() == 'import yolo3.mxnet_setup\n'
    venv = machine.project / '.venv'
    project = (venv / 'lib' / 'python3.11' / 'site-packages' / 'yolo3.pth').read_text().rstrip('\n')
    assert os.path.samefile(project, str(machine.project))
    # horovodrun finds out what was compiled by an import.
    assert (venv / 'bin' / 'horovodrun').read_text().splitlines()[1:2] == ['import yolo3.mxnet_setup']


def test_horovod_for_the_gpu_set_is_with_nccl(machine):
    machine.compilers(cuda='11.8')
    done = machine.run('--gpu', '--horovod')
    assert done.returncode == 0, done.stderr
    assert 'Horovod with NCCL' in done.stdout and 'CUDA 11.8' in done.stdout
    assert machine.horovod['HOROVOD_GPU_OPERATIONS'] == 'NCCL'
    assert os.path.join(machine.horovod['HOROVOD_CUDA_HOME'], 'bin', 'nvcc') == str(machine.bin / 'nvcc')
    nccl = machine.horovod['HOROVOD_NCCL_HOME']
    assert os.path.isdir(os.path.join(nccl, 'include'))
    wheel = machine.project / '.venv' / 'lib' / 'python3.11' / 'site-packages' / 'nvidia' / 'nccl'
    assert os.readlink(os.path.join(nccl, 'lib', 'libnccl.so')) == str(wheel / 'lib' / 'libnccl.so.2')


@pytest.mark.parametrize('cuda, found', [(None, 'none'), ('13.0', '13.0'), ('10.2', '10.2')])
def test_horovod_for_the_gpu_set_needs_its_compiler(machine, cuda, found):
    machine.compilers(cuda)
    if not cuda:
        machine.program('nvcc', 'exit 1')
    assert_refused(machine.run('--gpu', '--horovod'), 'nvcc (found: %s)' % found, '--kv-store dist_sync_device')
    assert not machine.installs


@pytest.mark.parametrize('missing', ['c++', 'make', 'cmake'])
def test_horovod_needs_compilers(machine, missing):
    machine.compilers()
    (machine.bin / missing).unlink()
    assert_refused(machine.run('--cpu', '--horovod'), missing, 'apt-get install -y g++ make cmake')
    assert not machine.installs


def test_horovod_is_compiled_once_and_stays(machine):
    machine.compilers()
    machine.run('--cpu')
    assert not machine.compiled
    machine.run('--horovod')
    assert machine.compiled and not machine.installs
    for flags in [], ['--horovod']:
        machine.run(*flags)
        assert not machine.compiled
    machine.run('--dev')
    assert machine.compiled


def test_horovod_is_compiled_anew_for_another_mxnet(machine):
    machine.compilers(cuda='11.8')
    machine.run('--cpu', '--horovod')
    # The old one must be gone even where it comes to nothing.
    machine.run('--gpu', FAKE_PIP='fails')
    packages = machine.project / '.venv' / 'lib' / 'python3.11' / 'site-packages'
    assert not (packages / 'horovod').exists()
    machine.run('--gpu', '--horovod')
    assert machine.compiled and machine.horovod['HOROVOD_GPU_OPERATIONS'] == 'NCCL'


@pytest.mark.parametrize('accident', ['is not compiled', 'cannot be loaded'])
def test_horovod_that_failed_is_compiled_again(machine, accident):
    machine.compilers()
    done = machine.run('--horovod', FAKE_HOROVOD=accident)
    assert done.returncode == 1
    assert 'Horovod was not built' in done.stderr and 'is ready' not in done.stdout
    assert machine.run('--horovod').returncode == 0
    assert machine.compiled and not machine.installs


def test_a_missing_system_library_is_refused_each_time(machine):
    for _ in range(2):
        done = machine.run(FAKE_RUNTIME='2')
        assert done.returncode == 2
        assert 'is ready' not in done.stdout
    assert not machine.installs


def test_only_large_downloads_are_shown(machine):
    done = machine.run()
    assert 'numpy.whl (17.1 MB)' in done.stdout
    assert 'Collecting' not in done.stdout and 'kB' not in done.stdout


@pytest.mark.parametrize('script, flags, selection', [
    ('scripts/test.sh', [], []), ('scripts/test.sh', ['--all'], ['-m', '']), ('.ci/run', [], ['-m', ''])])
def test_the_tests_are_run_with_the_arguments_passed_on(machine, script, flags, selection):
    done = machine.run(*flags, '-k', 'a b', script=script)
    assert done.returncode == 0, done.stderr
    assert machine.installs == [CPU + ' -r requirements/dev.txt']
    assert machine.commands[-2:] == [['-m', 'ruff', 'check'], [
        *'-m pytest tests -n 2 --dist worksteal'.split(), *selection, '-k', 'a b']]


def test_ci_tries_what_failed_once_more(machine):
    done = machine.run('-k', 'a b', script='.ci/run', FAKE_TESTS='fail once')
    assert done.returncode == 0 and 'tried once more' in done.stdout
    first, second = [command for command in machine.commands if command[:2] == ['-m', 'pytest']]
    assert '--last-failed' not in first and second[7:] == ['-m', '', '--last-failed', '-k', 'a b']


# The original repository's commands, word for word.
ORIGINAL = {
    'scripts/train_voc.sh': '--network mobilenet1_0 --dataset voc --gpus 0,1,2,3,4,5,6,7 --batch-size 64 -j 16 '
    '--log-interval 100 --lr-decay-epoch 160,180 --epochs 200 --syncbn --warmup-epochs 4',
    'scripts/train_coco.sh': '--network mobilenet1_0 --dataset coco --gpus 0,1,2,3,4,5,6,7 --batch-size 64 -j 32 '
    '--log-interval 100 --lr-decay-epoch 220,250 --epochs 280 --syncbn --warmup-epochs 2 --mixup --no-mixup-epochs 20 '
    '--label-smooth --no-wd'}


@pytest.mark.parametrize('script', ['scripts/train_voc_best.sh', 'scripts/train_coco_best.sh'])
def test_our_own_recipes_are_the_originals_but_for_what_was_measured(machine, script):
    assert machine.run('--dataset-root', 'my data', script=script).returncode == 0
    (_, *args), = machine.commands
    ours, original = map(parse_args, (args, ORIGINAL[script.replace('_best', '')].split()))
    assert ours.dataset_root == 'my data'
    kept = 'network', 'dataset', 'gpus', 'batch_size', 'num_workers', 'epochs', 'syncbn', 'warmup_epochs', 'sizes'
    assert [vars(ours)[name] for name in kept] == [vars(original)[name] for name in kept]
    assert (ours.optimizer, ours.lr_mode, ours.mixup, ours.label_smooth) == ('adam', 'cosine', False, False)


@pytest.mark.parametrize('script', sorted(ORIGINAL))
def test_the_recipes_are_the_original_commands(machine, script):
    assert machine.run('--dataset-root', 'my data', script=script).returncode == 0
    (train, *args), = machine.commands
    assert os.path.samefile(os.path.dirname(train), str(machine.project))
    assert os.path.basename(train) == 'train_yolo3_mobilenet.py'
    assert args == ORIGINAL[script].split() + ['--dataset-root', 'my data']


@pytest.mark.parametrize('flag, gpus', [('--cpu', ''), ('--gpu', '0')])
def test_quickstart_goes_from_set_up_to_pictures(machine, flag, gpus, monkeypatch):
    import demo
    import eval_yolo3
    run = machine.project / 'runs' / 'quickstart'
    run.mkdir(parents=True)
    (run / 'eval.json').write_text('{"params": "", "values": {"mAP": 0.625}}')
    done = machine.run(flag, script='scripts/quickstart.sh')
    assert done.returncode == 0, done.stderr
    assert 'mAP (VOC07): 0.6250' in done.stdout
    assert str(run / 'pictures') in done.stdout.splitlines()[-1]

    make, train, evaluate, show = [command for command in machine.commands if command[0].endswith('.py')]
    assert [os.path.basename(command[0]) for command in (make, train, evaluate, show)] == [
        'make_digits.py', 'train_yolo3_mobilenet.py', 'eval_yolo3.py', 'demo.py']
    monkeypatch.chdir(machine.project)
    trained = parse_args(train[1:])
    evaluated, shown = eval_yolo3.parse_args(evaluate[1:]), demo.parse_args(show[1:])
    assert trained.gpus == evaluated.gpus == shown.gpus == gpus
    assert trained.prefix + '_best.params' == evaluated.params == shown.params
    assert trained.dataset_root == evaluated.dataset_root == make[make.index('--out') + 1]
    assert trained.val_splits == evaluated.val_splits
    assert (evaluated.json, shown.out_dir) == ('runs/quickstart/eval.json', 'runs/quickstart/pictures')


def test_quickstart_stops_where_a_step_fails(machine):
    done = machine.run(script='scripts/quickstart.sh', FAKE_RUNTIME='2')
    assert done.returncode == 2
    assert not any('make_digits' in command[0] for command in machine.commands)


def wanted(name):
    """The lines of a list without their comments."""
    with open(os.path.join(ROOT, name)) as file:
        return [line.split('#')[0].strip() for line in file]


@pytest.mark.parametrize('name, common, mxnet', [
    ('requirements.txt', '-r requirements/common.txt', 'mxnet-cu112==1.9.1'),
    ('requirements/cpu.txt', '-r common.txt', 'mxnet==1.9.1')])
def test_each_set_has_one_mxnet_and_the_common_list(name, common, mxnet):
    assert common in wanted(name)
    assert [line for line in wanted(name) if line.startswith('mxnet')] == [mxnet]


def test_what_the_gpu_set_repeats_is_as_in_the_common_list():
    repeated = [line for line in wanted('requirements.txt') if line.startswith(('gluoncv', 'numpy', 'opencv', 'tqdm'))]
    assert len(repeated) == 5
    assert set(repeated) <= set(wanted('requirements/common.txt'))
