"""From the table `linked` to the table `estimates`: a plan, and one row per number."""
