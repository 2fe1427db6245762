# The project with its .venv, for x86-64: docker build -t yolo3 .
#   docker run --rm -v ~/.mxnet:/root/.mxnet -v "$PWD/runs:/yolo/runs" --shm-size 8g yolo3 \
#       python train_yolo3_mobilenet.py --gpus '' --save-prefix runs/
# --build-arg SET=gpu takes the GPU set (docker run --gpus all); --build-arg HOROVOD=--horovod compiles Horovod and adds
# sshd, for scripts/cluster/mpijob.yaml.
# No image was built for the project's tests: the commands of the CPU set were run one by one in a bare Debian 12.
ARG SET=cpu

FROM debian:bookworm-slim AS cpu

FROM nvidia/cuda:11.8.0-devel-ubuntu22.04 AS gpu
# The driver comes with the host that runs the image. Until then its stub, under the driver's name, lets MXNet load.
RUN ln -s libcuda.so /usr/local/cuda/lib64/stubs/libcuda.so.1

FROM $SET
ARG SET
ARG HOROVOD=
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv libgomp1 libquadmath0 libgl1 libglib2.0-0 \
        ${HOROVOD:+g++ make cmake python3-dev openssh-server openssh-client} \
    && rm -rf /var/lib/apt/lists/*
# The MPI operator mounts its ssh keys with modes that sshd's StrictModes refuses, and hosts get new keys each time.
RUN if [ -n "$HOROVOD" ]; then mkdir -p /run/sshd \
    && echo 'StrictModes no' >> /etc/ssh/sshd_config \
    && printf 'Host *\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n' >> /etc/ssh/ssh_config; fi

WORKDIR /yolo
COPY requirements.txt ./
COPY requirements requirements
COPY scripts/setup.sh scripts/
COPY yolo3 yolo3
RUN LD_LIBRARY_PATH="/usr/local/cuda/lib64/stubs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
    bash scripts/setup.sh "--$SET" $HOROVOD
COPY . .
ENV PATH="/yolo/.venv/bin:$PATH"
CMD ["python", "-m", "yolo3"]
