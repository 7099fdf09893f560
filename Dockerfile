# agnet on a CPU. Its default command is the demo, which needs no network:
#   docker build --tag agnet . && docker run --rm agnet
# Your own photographs, in the current folder (docs/installing.md):
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" --workdir /work agnet propose photos

FROM python:3.11-slim-bookworm AS wheel
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.11-slim-bookworm
# OpenCV's wheel loads libGL and GLib, which the slim image lacks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# First and alone: the largest layer, which a change of agnet leaves as it is. PyPI's wheels bring several GB of CUDA.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/agnet-*.whl)[demo]"
# Caches are in the home folder, where any --user may write.
RUN useradd --create-home agnet && chmod 1777 /home/agnet
ENV HOME=/home/agnet
USER agnet
WORKDIR /home/agnet
ENTRYPOINT ["agnet"]
CMD ["demo"]
