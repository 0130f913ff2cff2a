"use strict";

// Behind a path prefix the routes lie under it: say so, where the document itself cannot know.
fetch("openapi.json")
  .then((answer) => answer.json())
  .then((spec) => {
    if (!spec.openapi) throw new Error(spec.message);
    spec.servers = [{ url: new URL("..", location.href).pathname.replace(/\/$/, "") || "/" }];
    window.SwaggerUIBundle({ spec, dom_id: "#api", docExpansion: "none", filter: true, deepLinking: true, validatorUrl: null });
  })
  .catch((error) => {
    document.getElementById("api").textContent = `The API's description did not come: ${error.message}`;
  });
