"""The generator of training and demonstration scans: an analytic thorax with calcium."""
