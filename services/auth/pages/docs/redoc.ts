// ReDoc for one of the documents: the one that ?service= names, otherwise the first.
const wanted = new URLSearchParams(location.search).get('service')
const shown = latchkeyDocuments.find(({ name }) => name === wanted) ?? latchkeyDocuments[0]
const links = latchkeyDocuments.map(({ name }) => {
  const link = document.createElement('a')
  link.href = `?service=${encodeURIComponent(name)}`
  link.textContent = name
  if (name === shown?.name) link.setAttribute('aria-current', 'page')
  return link
})
document.querySelector('nav')?.append(...links)
const target = document.getElementById('redoc')
if (shown && target) Redoc.init(shown.url, { hideDownloadButtons: true, disableSearch: true }, target)
