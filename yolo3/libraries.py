"""What an import lacks on this machine, in one line: a Python module, or a library of the system."""
from yolo3.cli import UserError, fail

# What libmxnet and opencv-python take from the system, and the Debian / Ubuntu package that has it.
SYSTEM_LIBRARIES = {'libgomp.so.1': 'libgomp1', 'libquadmath.so.0': 'libquadmath0',
                    'libGL.so.1': 'libgl1', 'libgthread-2.0.so.0': 'libglib2.0-0'}

# What the GPU build of MXNet takes from NVIDIA's wheels, each after those it needs itself.
CUDA_LIBRARIES = ('cuda_runtime/lib/libcudart.so.11.0', 'cuda_nvrtc/lib/libnvrtc.so.11.2',
                  'nvtx/lib/libnvToolsExt.so.1', 'cublas/lib/libcublasLt.so.11', 'cublas/lib/libcublas.so.11',
                  'cufft/lib/libcufft.so.10', 'curand/lib/libcurand.so.10', 'cusparse/lib/libcusparse.so.11',
                  'cusolver/lib/libcusolver.so.11', 'nccl/lib/libnccl.so.2', 'cudnn/lib/libcudnn.so.8')


def explained(error):
    """The UserError for a Python module or shared library that an import lacked; None for any other error."""
    if isinstance(error, ModuleNotFoundError):
        return UserError('Python has no module %s here; bash scripts/setup.sh makes .venv, where .venv/bin/python has '
                         'all that is needed (or: pip install -r requirements-cpu.txt; for .onnx files '
                         'requirements-deploy.txt)' % error.name)
    name = str(error).split(':')[0]
    if name in SYSTEM_LIBRARIES:
        return UserError('the system lacks %s (Debian package %s); all that is needed: apt-get install -y %s'
                         % (name, SYSTEM_LIBRARIES[name], ' '.join(SYSTEM_LIBRARIES.values())))
    if name == 'libcuda.so.1' or any(library.endswith('/' + name) for library in CUDA_LIBRARIES):
        return UserError('the installed MXNet is the GPU build and lacks %s (%s); scripts/setup.sh --cpu installs the '
                         'CPU build' % (name, 'part of the NVIDIA driver' if name == 'libcuda.so.1' else
                                        'it comes with pip install -r requirements.txt'))
    return None


def give_up(error):
    """Leave with the one line of `explained`; raise an `error` that it does not know."""
    if explained(error) is None:
        raise error
    fail(explained(error))


def check_opencv():
    """Leave with one line where OpenCV cannot be imported whole."""
    try:
        import cv2
    except (ImportError, OSError) as error:
        give_up(error)
    if not hasattr(cv2, 'imread'):
        fail(UserError('the cv2 module is in pieces, as where opencv-python and opencv-python-headless were '
                       'installed over each other or pip was stopped: pip uninstall both, then pip install '
                       'opencv-python==4.11.0.86'))
