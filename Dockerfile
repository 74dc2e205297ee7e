# One image for both services, with a target for each. No build step: Node runs TypeScript directly. A release passes the digest
# of the base too (.github/workflows/release-image.yml).
ARG NODE_IMAGE=node:24-bookworm-slim

# The packages are the same for all processors, so a build for several of them installs them once, without an emulator.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# No package that is needed at run time has an install script.
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE} AS base
ENV NODE_ENV=production HOST=0.0.0.0
# A new volume gets the owner of the folder on which it is mounted.
RUN mkdir -p /data /keys/service /keys/admin /keys/database && chown -R 1000:1000 /data /keys
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY packages packages
COPY shared shared
COPY services services
COPY commands commands
# The user `node`, by number: with runAsNonRoot, Kubernetes rejects a name because it could be root.
USER 1000:1000

FROM base AS auth
ENV INTERNAL_HOST=0.0.0.0
EXPOSE 3001 3101
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s --start-interval=1s \
  CMD ["node", "commands/healthcheck.ts", "auth"]
CMD ["node", "services/auth/main.ts"]

FROM base AS business
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s --start-interval=1s \
  CMD ["node", "commands/healthcheck.ts", "business"]
CMD ["node", "services/business/main.ts"]
