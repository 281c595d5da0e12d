"""Certificates made with openssl, as operators make them."""
import pathlib
import subprocess


class Authority:
    """A certificate authority in `folder`, and what it signs."""

    def __init__(self, folder, name):
        self.folder, self.name = pathlib.Path(folder), name
        self.certificate = self.folder / f"{name}.crt"
        self._key = self.folder / f"{name}.key"
        self._openssl("req", "-x509", *self._new_key(self._key), "-days", "2", "-subj", f"/CN={name}", "-out",
                      self.certificate)

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    @staticmethod
    def _new_key(path):
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path

    def sign(self, name, days=2):
        """Paths of a certificate for localhost and of its key; `days` below 0: it has expired."""
        key, request, extensions, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "ext", "crt"))
        extensions.write_text("subjectAltName=DNS:localhost\n")
        self._openssl("req", *self._new_key(key), "-subj", f"/CN={name}", "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
                      "-days", days, "-extfile", extensions, "-out", certificate)
        return certificate, key
