"""The web application of `cac review`: on this machine only, for readers of scored studies."""
