#!/usr/bin/env bash
# Make .venv and install the requirements: bash scripts/setup.sh [--cpu|--gpu] [--dev] [--horovod]
# Without --cpu or --gpu it keeps the installed set, or picks the one that fits this machine. Once built, Horovod stays.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

say() { echo "setup: $*"; }
fail() { echo "setup: error: $*" >&2; exit 2; }

# usable PYTHON: whether MXNet 1.9.1 runs on this Python
usable() {
    "$1" -c 'import sys
sys.exit(sys.implementation.name != "cpython" or not (3, 8) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" || fail "PYTHON=$PYTHON is not a CPython 3.8-3.12"
        echo "$PYTHON"
        return
    fi
    local name
    for name in python3 python3.11 python3.10 python3.12 python3.9 python3.8 \
        "$(uv python find '>=3.8,<3.13' 2>/dev/null)"; do
        if usable "$name"; then
            echo "$name"
            return
        fi
    done
    fail 'no CPython 3.8-3.12 found, and MXNet 1.9.1 needs one: install it, for example with' \
        '"uv python install 3.11" or your package manager, or name it: PYTHON=/path/to/python bash scripts/setup.sh'
}

# choose: print the requirements file that fits this machine; say why on stderr
choose() {
    local capabilities why
    capabilities=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) || capabilities=''
    case "$platform $capabilities" in
        # The kernels in MXNet 1.9.1 are for compute capability 5.0 to 8.9.
        'Linux x86_64 '[5-8].* | 'Linux x86_64 '*$'\n'[5-8].*)
            say 'GPU set: nvidia-smi shows a GPU that MXNet has kernels for' >&2
            echo requirements.txt
            return ;;
        'Linux x86_64 ') why='nvidia-smi shows no GPU' ;;
        'Linux x86_64 '*) why="MXNet has no kernels for compute capability ${capabilities%%$'\n'*}, only 5.0 to 8.9" ;;
        *) why="MXNet's GPU build is for Linux x86_64 only" ;;
    esac
    say "CPU set: $why" >&2
    echo requirements/cpu.txt
}

# check_compilers: fail if Horovod cannot be compiled against the set; say how it will be
check_compilers() {
    local tool nvcc release
    for tool in "${CXX:-c++}" make cmake; do
        command -v "$tool" >/dev/null ||
            fail "Horovod must be compiled, and $tool is missing; on Debian and Ubuntu:" \
                'apt-get install -y g++ make cmake'
    done
    if [ "$set" = requirements/cpu.txt ]; then
        say 'Horovod without NCCL: this is the CPU set'
        return
    fi
    nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
    release=$("$nvcc" --version 2>/dev/null | awk '/release/ { sub(",", "", $5); print $5 }') || release=none
    case $release in
        11.*) say "Horovod with NCCL: this is the GPU set, and $nvcc is CUDA $release" ;;
        *) fail "Horovod cannot be compiled against the GPU set without CUDA 11's nvcc (found: $release): install the" \
            "CUDA toolkit 11.8, or train with --kv-store dist_sync_device, which needs neither" ;;
    esac
    HOROVOD_CUDA_HOME=${nvcc%/bin/nvcc}
    export HOROVOD_CUDA_HOME HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED HOROVOD_NCCL_HOME="$PWD/.venv/compile"
}

set='' dev='' horovod=''
for argument; do
    case $argument in
        --cpu) set=requirements/cpu.txt ;;
        --gpu) set=requirements.txt ;;
        --dev) dev=requirements/dev.txt ;;
        --horovod) horovod=requirements/horovod.txt ;;
        *) fail "unknown argument $argument: bash scripts/setup.sh [--cpu|--gpu] [--dev] [--horovod]" ;;
    esac
done

platform="$(uname -s) $(uname -m)"
case $platform in
    'Linux x86_64' | 'Linux aarch64' | 'Darwin x86_64') ;;
    *) fail "MXNet 1.9.1 has no wheel for $platform, only for Linux (x86_64, aarch64) and macOS on Intel:" \
        'use one of these, for example in a Linux container' ;;
esac
if [ "$set" = requirements.txt ] && [ "$platform" != 'Linux x86_64' ]; then
    fail "MXNet's GPU build is for Linux x86_64 only: use --cpu"
fi

# What an interrupted pip leaves behind looks complete to the next pip.
if [ -e .venv/unfinished ]; then
    say 'the last run was interrupted: making .venv anew'
    rm -rf .venv
fi
if [ -e .venv ]; then
    usable .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1 ||
        fail '.venv holds no working CPython 3.8-3.12 with pip: run rm -rf .venv, then this again'
else
    python=$(find_python)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian and Ubuntu: apt-get install -y python$version-venv"
    say "making .venv with Python $version"
    mkdir .venv
    : > .venv/unfinished
    "$python" -m venv .venv
fi

# .venv/installed holds a copy of each list as it was installed.
if [ -z "$set" ] && [ -e .venv/installed/requirements.txt ]; then set=requirements.txt; fi
if [ -z "$set" ] && [ -e .venv/installed/cpu.txt ]; then set=requirements/cpu.txt; fi
if [ -z "$set" ]; then set=$(choose); fi
if [ -e .venv/installed/horovod.txt ]; then horovod=requirements/horovod.txt; fi
case $set in
    requirements.txt) other=mxnet name=GPU size='2.6 GB' ;;
    *) other=mxnet-cu112 name=CPU size='220 MB' ;;
esac
todo='' compile=''
lists=(requirements/common.txt "$set" ${dev:+"$dev" requirements/deploy.txt requirements/convert.txt})
for list in "${lists[@]}"; do
    cmp -s "$list" ".venv/installed/${list##*/}" || todo=yes
done
# Horovod is compiled anew after any change to what it is compiled against.
if [ -n "$horovod" ] && { [ -n "$todo" ] || ! cmp -s $horovod .venv/installed/horovod.txt; }; then
    check_compilers
    compile=yes
fi
if [ -n "$todo" ]; then
    say "installing the $name set into .venv ($size to download unless pip has it already)"
    rm -rf .venv/installed .venv/lib/python*/site-packages/horovod*
    .venv/bin/python -m pip install --quiet --upgrade pip
    # Both builds of MXNet install into the same folder.
    .venv/bin/python -m pip uninstall --quiet --yes $other 2>/dev/null
    .venv/bin/python -m pip install -r $set ${dev:+-r $dev} |
        awk '/(Downloading|Using cached) .* MB\)/ { print; fflush() }' ||
        { echo 'setup: error: pip failed, see above; then run this again' >&2; exit 1; }
    mkdir .venv/installed
    cp "${lists[@]}" .venv/installed/
    rm -f .venv/unfinished
fi

# Loads all of it, or names the system library that is missing.
.venv/bin/python -m yolo3.mxnet_setup

if [ -n "$compile" ]; then
    say 'compiling Horovod into .venv, which takes minutes'
    # pip cannot remove a half-finished installation of its own.
    packages=$(echo "$PWD"/.venv/lib/python*/site-packages)
    rm -rf .venv/installed/horovod.txt "$packages"/horovod* .venv/compile
    mkdir -p .venv/compile/lib
    # Horovod's build and horovodrun import MXNet, which needs what yolo3.mxnet_setup does first.
    echo "$PWD" > "$packages/yolo3.pth"
    echo 'import yolo3.mxnet_setup' > .venv/compile/sitecustomize.py
    if [ "$set" = requirements.txt ]; then
        ln -s "$packages/nvidia/nccl/include" .venv/compile/include
        # The wheel lacks the name that the linker looks for.
        ln -s "$packages/nvidia/nccl/lib/libnccl.so.2" .venv/compile/lib/libnccl.so
    fi
    .venv/bin/python -m pip install --quiet wheel
    # pip's cache does not know which MXNet it was built against.
    PYTHONPATH="$PWD/.venv/compile" HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 \
        HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 PYTHONWARNINGS=ignore \
        .venv/bin/python -m pip install --quiet --no-cache-dir --no-build-isolation -r $horovod &&
        awk '/^from horovod/ { print "import yolo3.mxnet_setup" } { print }' .venv/bin/horovodrun > .venv/compile/run &&
        cat .venv/compile/run > .venv/bin/horovodrun &&
        .venv/bin/python -c 'import yolo3.mxnet_setup, horovod.mxnet' ||
        { echo 'setup: error: Horovod was not built, see above; then run this again' >&2; exit 1; }
    cp $horovod .venv/installed/
fi
say ".venv is ready, with the $name set"
