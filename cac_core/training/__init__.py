"""Training of both networks on annotated scans."""
