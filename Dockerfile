# One image for both services, two targets that differ in what they run. No build step: Node runs the TypeScript as it is.
FROM node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# No package that is needed at run time has anything to do at its installation.
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:24-bookworm-slim AS base
ENV NODE_ENV=production HOST=0.0.0.0
# A volume takes its owner from the folder that it is mounted on when it is new.
RUN mkdir -p /data /keys/service /keys/admin /keys/database && chown -R node:node /data /keys
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY shared shared
COPY services services
COPY scripts scripts
USER node

FROM base AS auth
ENV INTERNAL_HOST=0.0.0.0
EXPOSE 3001 3101
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s --start-interval=1s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:3001/ready').then(a => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "services/auth/main.ts"]

FROM base AS business
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s --start-interval=1s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:3000/ready').then(a => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "services/business/main.ts"]
