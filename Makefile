# Two commands on a fresh machine: `make demo` and `make test`. Both keep to .venv and to what git ignores, and so does
# `make docs`, which builds the pages of docs/ into site/ (the tests build them, too).
PYTHON ?= python3
VENV ?= .venv
# On Linux without a GPU, the small CPU build: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

bin = $(VENV)/bin
agnet = $(bin)/agnet

.PHONY: demo test docs install clean

demo: EXTRAS = demo
demo: install
	$(agnet) demo --output demo

test: EXTRAS = dev
test: install $(VENV)/source/agnet
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	MYPYPATH=$(VENV)/source $(bin)/mypy -p agnet
	$(bin)/pytest -n 2 --dist worksteal --durations 10

docs: EXTRAS = docs
docs: install
	NO_MKDOCS_2_WARNING=1 $(bin)/python -m mkdocs build --strict

# mypy does not follow editable installs, and our package is this very folder: give it a parent.
$(VENV)/source/agnet: $(bin)/python
	mkdir -p $(VENV)/source && ln -sfn "$(CURDIR)" $@

install: $(bin)/python
ifneq ($(TORCH_INDEX),)
	$(bin)/pip install --quiet torch torchvision --index-url $(TORCH_INDEX)
endif
	$(bin)/pip install --quiet --editable '.[$(EXTRAS)]'

$(bin)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf demo build site *.egg-info
