# trainkit on the CPU:   docker build -t trainkit . && docker run --rm trainkit selftest resume
# With your folder:      docker run --rm --user "$(id -u)" -v "$PWD:/work" trainkit train config.yaml
FROM python:3.12-slim
RUN useradd trainkit && install -d -o trainkit /work
ENV HOME=/tmp
# The default build of PyTorch brings CUDA, more than 5 GB. Give the index of its CPU builds, which PyTorch's page names
# (https://pytorch.org/get-started/locally): docker build --build-arg TORCH_INDEX=...
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
COPY . /source
RUN pip install --no-cache-dir '/source[onnx]' && rm -rf /source
USER trainkit
WORKDIR /work
ENTRYPOINT ["trainkit"]
CMD ["--help"]
