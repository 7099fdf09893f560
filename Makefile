# Two commands on a fresh machine: `make demo` and `make test`. Both keep to .venv and to what git ignores.
PYTHON ?= python3
VENV ?= .venv
# On Linux without a GPU, the small CPU build: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

bin = $(VENV)/bin
agnet = $(bin)/agnet

.PHONY: demo test install clean

demo: EXTRAS = demo
demo: install
	$(agnet) propose --dataset demo --root datasets --boxes demo/boxes.h5
	rm -rf demo/run
	$(agnet) train --boxes demo/boxes.h5 --root datasets --run demo/run \
		--backbone efficientnet-lite0 --backbone-lr 0 --epochs 3
	$(agnet) evaluate --run demo/run
	$(agnet) predict --run demo/run --save demo/pictures \
		datasets/agnet-demo-1/test/cat/000.jpg datasets/agnet-demo-1/test/coffee/001.jpg \
		datasets/agnet-demo-1/test/rocket/002.jpg
	@echo
	@echo "demo/boxes.h5                   the regions: open it in HDFView, begin with preview/contact_sheet"
	@echo "demo/run/                       configuration, log, best and last checkpoint; curves.png shows how it learnt"
	@echo "demo/run/metrics-test.json      accuracy on the test part; confusion-test.png shows what was taken for what"
	@echo "demo/pictures/                  three test photographs with regions and prediction"

test: EXTRAS = dev
test: install
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	# mypy does not follow editable installs, and our package is this very folder: give it a parent.
	mkdir -p $(VENV)/source && ln -sfn "$(CURDIR)" $(VENV)/source/agnet
	MYPYPATH=$(VENV)/source $(bin)/mypy -p agnet
	$(bin)/pytest -n 2 --durations 10

install: $(bin)/python
ifneq ($(TORCH_INDEX),)
	$(bin)/pip install --quiet torch torchvision --index-url $(TORCH_INDEX)
endif
	$(bin)/pip install --quiet --editable '.[$(EXTRAS)]'

$(bin)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf demo build *.egg-info
