"""Installed by colcon; `sam2edge` itself comes by pip."""

from setuptools import setup

NAME = "sam2edge_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/sam2edge.launch.py"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    description="Follows objects through a camera's images with SAM 2 on small devices",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"follow = {NAME}.node:main"]},
)
