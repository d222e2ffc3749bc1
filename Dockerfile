# docker build -t wan-ui .                       CPU only
# docker build -t wan-ui --build-arg CUDA=1 .    with CUDA; run with --gpus all
# and --build-arg RAY=1                          for a page and nodes on Ray: see compose.yaml
FROM python:3.12-slim

ARG CUDA=0
ARG RAY=0

# Triton builds its launchers with a C compiler.
RUN if [ "$CUDA" = 1 ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

# Spaces run the container as uid 1000.
RUN useradd --create-home --uid 1000 user
USER user
ENV HOME=/home/user \
    PATH=/home/user/.local/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    WAN_UI_HOST=0.0.0.0 \
    WAN_UI_PORT=7860 \
    WAN_UI_OUTPUTS=/home/user/data/outputs \
    WAN_UI_MODELS=/home/user/data/models \
    WAN_UI_LORAS=/home/user/data/loras \
    WAN_UI_CACHE=/home/user/data/cache
WORKDIR /home/user/app

COPY --chown=user requirements.txt requirements.lock requirements-lightx2v.txt requirements-ray.txt ./
# Each package is the one of the lock file, to its checksum; torch follows by its version: PyPI's brings gigabytes of CUDA
# libraries, PyTorch's own index has a build without them.
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock && \
    torch="$(grep '^torch==' requirements.txt)" && \
    if [ "$CUDA" = 0 ]; then \
        pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$torch"; \
    else \
        pip install --no-cache-dir "$torch" && pip install --no-cache-dir --no-deps -r requirements-lightx2v.txt; \
    fi && \
    if [ "$RAY" = 1 ]; then pip install --no-cache-dir -r requirements-ray.txt; fi
COPY --chown=user . .
RUN mkdir -p /home/user/data/loras

EXPOSE 7860
VOLUME /home/user/data
# The first start on a slow machine takes a minute.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["python", "tools/healthcheck.py"]
CMD ["python", "app.py"]
