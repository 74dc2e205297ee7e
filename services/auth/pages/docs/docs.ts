// Swagger UI for the documents of both services.
SwaggerUIBundle({
  dom_id: '#swagger-ui',
  urls: latchkeyDocuments,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: 'StandaloneLayout',
  validatorUrl: null, // it would send the document to another host
  persistAuthorization: false,
  deepLinking: true,
})
