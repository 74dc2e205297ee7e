// The extension of this program's files: `.ts` in the repository, `.js` in the published package, which is compiled.
import { extname } from 'node:path'

export const codeExtension = extname(import.meta.filename)
