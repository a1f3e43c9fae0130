"""The API: what people, pages and scripts ask of the engine over HTTP."""
