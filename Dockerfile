# One image for both services, two targets that differ in what they run. No build step: Node runs the TypeScript as it is.
FROM node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# No package that is needed at run time has anything to do at its installation.
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:24-bookworm-slim AS base
ENV NODE_ENV=production HOST=0.0.0.0
# A volume takes its owner from the folder that it is mounted on when it is new.
RUN mkdir -p /data /keys/service /keys/admin /keys/database && chown -R 1000:1000 /data /keys
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY packages packages
COPY shared shared
COPY services services
COPY commands commands
# The image's user `node`, by number: Kubernetes cannot see from a name that it is not root (runAsNonRoot).
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
