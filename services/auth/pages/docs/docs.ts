// Swagger UI for the documents of both services.
SwaggerUIBundle({
  dom_id: '#swagger-ui',
  urls: latchkeyDocuments,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: 'StandaloneLayout',
  validatorUrl: null, // otherwise the document would be sent to another host
  persistAuthorization: false,
  deepLinking: true,
})
