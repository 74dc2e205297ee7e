# docker buildx bake: the images of both services, for two kinds of processors. .github/workflows/release-image.yml sets the
# variables, the digest of the base included. To try one image: docker buildx bake --load --set '*.platform=linux/amd64' auth
variable "IMAGES" {
  default = "latchkey"
}

variable "VERSION" {
  default = "dev"
}

# Null leaves the default of the Dockerfile.
variable "NODE_IMAGE" {
  default = null
}

group "default" {
  targets = ["auth", "business"]
}

target "common" {
  context   = "."
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    NODE_IMAGE = NODE_IMAGE
  }
  labels = {
    "org.opencontainers.image.version"   = VERSION
    "org.opencontainers.image.base.name" = NODE_IMAGE
    "org.opencontainers.image.licenses"  = "MIT"
  }
}

target "auth" {
  inherits = ["common"]
  target   = "auth"
  tags     = ["${IMAGES}-auth:${VERSION}"]
}

target "business" {
  inherits = ["common"]
  target   = "business"
  tags     = ["${IMAGES}-business:${VERSION}"]
}
