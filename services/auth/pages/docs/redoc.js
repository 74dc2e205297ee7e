// ReDoc over one of the documents: the one that the address names, the first where it names none.
const wanted = new URLSearchParams(location.search).get('service')
const shown = latchkeyDocuments.find(({ name }) => name === wanted) ?? latchkeyDocuments[0]
for (const { name } of latchkeyDocuments) {
  const link = document.createElement('a')
  link.href = `?service=${encodeURIComponent(name)}`
  link.textContent = name
  if (name === shown.name) link.setAttribute('aria-current', 'page')
  document.querySelector('nav').append(link)
}
Redoc.init(shown.url, { hideDownloadButtons: true, disableSearch: true }, document.getElementById('redoc'))
