"""`sam2edge serve`: a camera followed in the background; a page, an HTTP interface and a WebSocket to steer it."""
