"""Figures and tables for people, from numbers computed elsewhere."""
