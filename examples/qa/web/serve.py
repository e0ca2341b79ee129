"""Serve a page that answers questions with an exported span model in the browser. Nothing leaves the machine.

(cd examples/qa/web && npm install)
distilkit export student-squad -o student-squad-onnx
python examples/qa/web/serve.py student-squad-onnx 8000
"""

import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).parent


class Handler(SimpleHTTPRequestHandler):
    """Serves the page and its packages, and the model's files below /model/."""

    model: Path

    def translate_path(self, path: str) -> str:
        found = Path(super().translate_path(path)).relative_to(Path.cwd())
        return str(self.model / found.relative_to("model") if found.parts[:1] == ("model",) else PAGE / found)

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")  # both allow threads in WebAssembly
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def main() -> None:
    Handler.model = Path(sys.argv[1]).absolute()
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"open http://127.0.0.1:{port}/")
        server.serve_forever()


if __name__ == "__main__":
    main()
