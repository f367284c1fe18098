// Starts Swagger UI on our own document. A file and not an inline script, so that the page's policy can forbid those.
"use strict";

window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    tryItOutEnabled: true,
    validatorUrl: null, // else the document would be sent to a third party to be checked
  });
});
