// Swagger UI for the documents of both services.
SwaggerUIBundle({
  dom_id: '#swagger-ui',
  urls: latchkeyDocuments,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: 'StandaloneLayout',
  validatorUrl: null, // a validator would get the document on another host
  persistAuthorization: false,
  deepLinking: true,
})
