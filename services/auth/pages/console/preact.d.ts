// preact.js is the package's own file, served beside ours: this tells its types.
export * from 'preact'
