"""Figures that several labs share, and sliders around plain drawing functions."""
