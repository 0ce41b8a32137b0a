FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OVAM_DATA_DIR=/data

WORKDIR /app
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY backends backends
COPY token_store token_store
COPY migrations migrations
COPY ovam_labeler ovam_labeler

# The CPU build of torch first; for a GPU image pass --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The project itself comes from this folder, so there is no version to pin for it.
# hadolint ignore=DL3013
RUN pip install --index-url "${TORCH_INDEX}" "torch==2.13.0" \
    && pip install ".[server,postgres]" \
    && useradd --create-home --uid 1000 ovam \
    && mkdir /data && chown ovam /data

USER 1000
VOLUME /data
EXPOSE 9090
ENTRYPOINT ["ovam-labeler"]
CMD ["serve", "--host", "0.0.0.0", "--port", "9090"]
