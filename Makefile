# Every target builds what it needs: the environment is made on first use and again when the pins change.

PYTHON ?= python3
PY := .venv/bin/python
pins = $(shell cat $(1) | cksum | cut -d' ' -f1)
RUN_STAMP := .venv/.run-$(call pins,requirements.txt)
BENCH_STAMP := .venv/.bench-$(call pins,requirements.txt requirements-test.txt requirements-bench.txt)
EXPORT_STAMP := .venv/.export-$(call pins,requirements.txt requirements-test.txt requirements-export.txt)
MORE_STAMP := .venv/.more-$(call pins,requirements.txt requirements-more.txt)
OLD := .venv-transformers4
OLD_STAMP := $(OLD)/.made-$(call pins,requirements-transformers4.txt)
TEST_STAMP := .venv/.test-$(call pins,requirements.txt requirements-test.txt)


# A variable as one argument, or each of its words as one, whatever the shell would make of them.
quoted = '$(subst ','\'',$(1))'
option = $(if $($(1)),--$(2) $(call quoted,$($(1))))
options = $(if $($(1)),--$(2) $(call each,$($(1))))
each = $(foreach word,$(1),$(call quoted,$(word)))
PRETRAIN_OPTIONS = $(call options,ARCHITECTURES,architectures) $(call option,BUDGET,budget) $(call option,CORPUS,corpus) \
	$(call option,SIZE,size) $(call options,SEEDS,seeds) $(call option,NAME,name) $(call option,RESUME,resume) $(CHINESE) $(ARGS)

# LANG is also the shell's locale, as zh_CN.UTF-8; what programs see of it is left as it was.
ifeq ($(LANG),zh)
CHINESE := --lang zh
RACE_STAMP = $(MORE_STAMP)
override LANG := C.UTF-8
else
RACE_STAMP = $(RUN_STAMP)
endif

.DEFAULT_GOAL := help
.PHONY: help pretrain frontier tune compare rivals scaling widths weissi imbalance glue clue score blimp words sts rerank correct soft-masked fewclue seq2seq chat bench-scoring bench-finetune export bench-export board test test-slow test-interop fuzz stress test-kernels test-gpu bench profile lint format clean

help: ## these lines
	@echo "twostream: masked language models that predict every position in one pass"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables of pretrain: BUDGET=20s|2e13flop|20Mtok CORPUS=name|path|hf:... ARCHITECTURES='tta vanilla' SIZE SEEDS"
	@echo "  LANG=zh (Chinese) NAME RESUME=runs/NAME ARGS='--any --option'; all options: make pretrain ARGS=--help"

pretrain: $(RACE_STAMP) ## train two-stream and vanilla MLM side by side and report who learned more (12 min on 2 cores)
	$(PY) pretrain.py $(PRETRAIN_OPTIONS)

EVALUATION_OPTIONS = --checkpoints $(call each,$(CHECKPOINT)) $(call option,DATA,data) $(call options,TASKS,tasks) $(call options,SEEDS,seeds) \
	$(call option,OUT,out) $(ARGS)
named = @test -n $(call quoted,$(CHECKPOINT)) || { echo "Name one or more: make $(1) CHECKPOINT=runs/NAME/checkpoints/tta-seed0 DATA=folder"; exit 2; }

glue: $(RUN_STAMP) ## fine-tune checkpoints on GLUE: CHECKPOINT="a b" DATA=folder|hub TASKS="CoLA MRPC" SEEDS="0 1 2"
	$(call named,glue)
	$(PY) -m eval.glue $(EVALUATION_OPTIONS)

clue: $(RUN_STAMP) ## the same on CLUE's ten tasks
	$(call named,clue)
	$(PY) -m eval.clue $(EVALUATION_OPTIONS)

score: $(RUN_STAMP) ## pseudo-log-likelihood of each line of INPUT=file by CHECKPOINT=folder, as JSON lines
	$(call named,score)
	$(PY) -m eval.score --checkpoint $(call quoted,$(CHECKPOINT)) $(call option,INPUT,input) $(call option,OUTPUT,output) $(ARGS)

blimp: $(RUN_STAMP) ## minimal pairs: DATA="BLiMP.zip ..." CHECKPOINT="a b", accuracy by phenomenon with its interval
	$(call named,blimp)
	$(PY) -m eval.pairs --checkpoints $(call each,$(CHECKPOINT)) $(call options,DATA,data) $(call option,OUT,out) $(ARGS)

words: $(RACE_STAMP) ## whole words in bits a character, across tokenizers: CORPUS=text CHECKPOINT="a b", LANG=zh for Chinese
	$(call named,words)
	$(PY) -m eval.words --checkpoints $(call each,$(CHECKPOINT)) $(call option,CORPUS,corpus) $(if $(CHINESE),--segmenter jieba) \
		$(call option,OUT,out) $(ARGS)

sts: $(RUN_STAMP) ## similarity of sentences without training: DATA="STS-B/dev.tsv ..." or STS-B or hub, CHECKPOINT="a b"
	$(call named,sts)
	$(PY) -m eval.similarity --checkpoints $(call each,$(CHECKPOINT)) $(call options,DATA,data) $(call option,OUT,out) $(ARGS)

rerank: $(RUN_STAMP) ## choose from n-best lists: DEV=lists DEV_REFERENCES="a b" TEST=lists TEST_REFERENCES="a b" ARGS="--metric wer"
	$(call named,rerank)
	$(PY) -m eval.rerank --checkpoints $(call each,$(CHECKPOINT)) $(call option,DEV,dev) $(call options,DEV_REFERENCES,dev-references) \
		$(call option,TEST,test) $(call options,TEST_REFERENCES,test-references) $(call option,OUT,out) $(ARGS)

correct: $(RUN_STAMP) ## doubtful tokens of each line of INPUT=file, replaced and on a page; or PAIRS=file, to be measured on
	$(call named,correct)
	$(PY) -m eval.correct --checkpoint $(call quoted,$(CHECKPOINT)) $(call option,INPUT,input) $(call option,PAIRS,pairs) $(call option,DEV,dev) \
		$(call option,OUT,out) $(ARGS)

soft-masked: $(MORE_STAMP) ## correctors of Chinese spelling, trained and not: CORPUS=text CHECKPOINT="a b" (of characters)
	$(call named,soft-masked)
	$(PY) -m eval.soft_masked --checkpoints $(call each,$(CHECKPOINT)) $(call option,CORPUS,corpus) $(call options,SEEDS,seeds) \
		$(call option,OUT,out) $(ARGS)

fewclue: $(RUN_STAMP) ## few-shot by patterns (PET) against fine-tuning: DATA=folder TASKS="eprstmt SST-2" CHECKPOINT="a b"
	$(call named,fewclue)
	$(PY) -m eval.fewclue --checkpoints $(call each,$(CHECKPOINT)) $(call option,DATA,data) $(call options,TASKS,tasks) $(call option,OUT,out) $(ARGS)

seq2seq: $(MORE_STAMP) ## fine-tune to write a target from a source, as titles: DATA=rows.jsonl|.tsv|articles.txt CHECKPOINT="a b"
	$(call named,seq2seq)
	$(PY) -m eval.seq2seq --checkpoints $(call each,$(CHECKPOINT)) $(call option,DATA,data) $(call options,SEEDS,seeds) \
		$(call option,OUT,out) $(ARGS)

chat: $(RUN_STAMP) ## talk to a checkpoint that make seq2seq fine-tuned on rows with turns: CHECKPOINT=runs/seq2seq/checkpoints/NAME
	$(call named,chat)
	$(PY) -m eval.chat --checkpoint $(call quoted,$(CHECKPOINT)) $(ARGS)

bench-scoring: $(BENCH_STAMP) ## sentences/s by length: two-stream, our vanilla, minicons and transformers' BERT of the same shape
	$(PY) -m eval.bench_scoring $(ARGS)

bench-finetune: $(BENCH_STAMP) ## fine-tuning tokens/s: ours against transformers' Trainer on the same rows and shape
	$(PY) -m eval.bench_finetune $(ARGS)

export: $(EXPORT_STAMP) ## CHECKPOINT=folder as a Hugging Face folder OUT=folder; ARGS="--to onnx --quantise" adds ONNX (docs/export.md)
	$(call named,export)
	$(PY) -m export.hf --checkpoint $(call quoted,$(CHECKPOINT)) $(call option,OUT,out) $(ARGS)

bench-export: $(EXPORT_STAMP) ## CHECKPOINT=folder on the sentences of INPUT=file: ours, transformers, ONNX, int8: nats, latency, size
	$(call named,bench-export)
	$(PY) -m export.bench --checkpoint $(call quoted,$(CHECKPOINT)) $(call option,INPUT,input) $(ARGS)

board: $(RUN_STAMP) ## TensorBoard on runs/, or on RUNS=folder
	$(PY) -m tensorboard.main --logdir $(call quoted,$(or $(RUNS),runs)) $(ARGS)

test: lint ## lint and tests (minutes)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m "not kernels and not slow" --ignore tests/gpu --ignore tests/interop $(ARGS)

test-slow: $(TEST_STAMP) ## what takes many seconds for each architecture, and a gigabyte of text
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m "slow and not kernels" --ignore tests/gpu --ignore tests/interop $(ARGS)

test-interop: $(EXPORT_STAMP) $(OLD_STAMP) ## exports, read by minicons, sentence-transformers, onnxruntime, and by transformers 4.51.3
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 tests/interop $(ARGS)
	OMP_NUM_THREADS=1 $(OLD)/bin/python -m pytest -n 2 tests/export tests/interop $(ARGS)

fuzz: $(TEST_STAMP) ## every reader, fed with files that are nearly right: an answer or one sentence (minutes; ARGS="--examples 300")
	$(PY) -m tests.endurance.fuzz $(ARGS)

stress: $(TEST_STAMP) ## kill a race at 20 random moments, resume it, and compare its end bit by bit (minutes)
	$(PY) -m tests.endurance.stress $(ARGS)

test-kernels: $(TEST_STAMP) ## the exhaustive kernel tests: every visibility, layout, head width, dtype, compiled size
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto tests/kernels $(ARGS)

test-gpu: $(TEST_STAMP) ## the kernels on CUDA tensors, the certificate there, and a training step that never waits
	@$(PY) -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { \
		echo "PyTorch finds no CUDA device here ($$($(PY) -c 'import torch; print(torch.__version__)')): nothing to test."; exit 2; }
	TRITON_INTERPRET=0 $(PY) -m pytest tests/gpu $(ARGS)

# The best of vanilla on tokens and the best on whole words, of those that were tuned (docs/tuning.md); ours has two layers.
NARROW := vanilla:narrow=1
BY_WORDS := $(NARROW),words=1.0,masking_rate=0.2
LOCAL := local:n_layers=2
NEAR := vanilla:near=3,learning_rate=4.5e-3

frontier: $(RUN_STAMP) ## what share of vanilla's budget two-stream needs, on tokens and on words; CORPUS=path; three seeds (90 min)
	$(PY) pretrain.py --architectures $(foreach share,0.125 0.25 0.5,$(LOCAL),budget=$(share)) $(LOCAL) $(LOCAL),words=0.0 tta \
		$(NARROW) $(NARROW),near=3,learning_rate=4.5e-3 $(BY_WORDS) --seeds $(or $(SEEDS),0 1 2) --budget $(or $(BUDGET),2e13flop) \
		--workers $(or $(WORKERS),0) $(call option,CORPUS,corpus) $(call option,SIZE,size) $(call option,NAME,name) $(ARGS)

# As they were tuned (docs/rivals.md).
RIVALS := $(LOCAL) $(LOCAL),words=0.0 $(NARROW) $(BY_WORDS) causal_first:narrow=1,share=0.15 partition:near=2,low=0.5 electra:learning_rate=6e-3 \
	rtd:generator=local,learning_rate=4.5e-3 permuted:near=3,learning_rate=4.5e-3 permuted:near=3,words=0.25,learning_rate=4.5e-3

rivals: $(RUN_STAMP) ## ours beside published ideas that make masked pretraining cheaper or denser; CORPUS=path (docs/rivals.md)
	$(PY) pretrain.py --architectures $(RIVALS) --budget $(or $(BUDGET),1e13flop) --workers $(or $(WORKERS),0) --seeds $(or $(SEEDS),0 1 2) \
		$(call option,CORPUS,corpus) $(call option,SIZE,size) $(call option,NAME,name) $(ARGS)

compare: $(RUN_STAMP) ## every architecture under one budget, in one table (a quarter of an hour on 2 cores)
	$(PY) pretrain.py --architectures local local:words=0.0 tta bicausal permuted rtd vanilla $(NARROW) $(BY_WORDS) $(NEAR) \
		--budget $(or $(BUDGET),1e13flop) --workers $(or $(WORKERS),0) --seeds $(or $(SEEDS),0) \
		$(call option,CORPUS,corpus) $(call option,SIZE,size) $(call option,NAME,name) $(ARGS)

# Deep and narrow, shallow, tiny, small (0.7, 0.9, 1.3 and 4.2 M parameters at 4,096 pieces); the shares are 1e12, 4e12, 1.5e13
# and 6e13 of 6e13 FLOP.
SCALING_SIZES := d_model=64,n_layers=8,n_heads=2 d_model=128,n_layers=2,n_heads=2 d_model=128,n_layers=4,n_heads=2 \
	d_model=256,n_layers=4,n_heads=4
SCALING_KINDS := local: $(NARROW), $(BY_WORDS),
SCALING_NAME = $(or $(NAME),scaling)
scaling_entries = $(foreach kind,$(SCALING_KINDS),$(foreach size,$(SCALING_SIZES),$(foreach share,$(1) 1,$(kind)$(size),budget=$(share))))
# A run that is there is continued as it began; asked for with other settings it is refused, since its name is taken.
asked = $(strip $(BUDGET) $(CHEAP) $(CORPUS) $(SIZE) $(SEEDS) $(WORKERS) $(ARGS))
continued = $(if $(and $(wildcard runs/$(1)/run.json),$(if $(asked),,yes)),--resume $(call quoted,runs/$(1)),--name $(call quoted,$(1)) \
	--workers $(or $(WORKERS),0) $(call option,CORPUS,corpus) $(2) $(ARGS))

scaling: $(RUN_STAMP) ## does the lead last? four sizes, four budgets, side by side, resumable (2.5 hours on 2 fast cores)
	$(PY) pretrain.py $(call continued,$(SCALING_NAME),--architectures $(call scaling_entries,0.01667 0.06667 0.25) \
		--budget $(or $(BUDGET),6e13flop))
	$(PY) pretrain.py $(call continued,$(SCALING_NAME)-seeds,--architectures $(call scaling_entries,0.25) \
		--budget $(or $(CHEAP),4e12flop) --seeds 1 2)
	$(PY) -m report.scaling runs/$(SCALING_NAME) runs/$(SCALING_NAME)-seeds

LOCAL_OPTIONS := near=1,taps=1 near=3 near=3,taps=3 near=4,taps=4 near=0,taps=0 taps=0 taps=1 n_heads=1 n_heads=4 n_layers=2 \
	n_layers=3 learning_rate=9e-3 words=0.0 words=0.15 words=0.5 words=1.0 n_layers=2,words=0.0 n_layers=2,words=0.15 n_layers=2,words=0.5

# Each kind's learning rate at its best other settings, then the others one by one at its best learning rate.
TUNED = $(foreach kind,local: tta: $(NARROW)$(comma) $(NARROW)$(comma)near=3$(comma),$(foreach rate,1.5e-3 2e-3 3e-3 4.5e-3 6e-3,$(kind)learning_rate=$(rate))) \
	$(foreach rate,0.15 0.2 0.4 0.5,$(NARROW),masking_rate=$(rate)) $(NARROW),masking_rate=0.4,final_masking_rate=0.15 \
	$(foreach share,0.25 0.5 1.0,$(NARROW),words=$(share)) \
	$(foreach rate,0.1 0.15 0.2 0.4,$(NARROW),words=1.0,masking_rate=$(rate)) vanilla vanilla:narrow=2 $(NEAR) vanilla:n_layers=2 \
	$(foreach option,$(LOCAL_OPTIONS),local:$(option)) bicausal:width=0 $(foreach width,16 32 64,bicausal:width=$(width))
comma := ,

tune: $(RUN_STAMP) ## rates of learning and masking, near, taps, tower width, chosen on the dev half of the held-out text (2 h)
	$(PY) pretrain.py $(call continued,$(or $(NAME),tune),--architectures $(TUNED) \
		--budget $(or $(BUDGET),2e13flop) $(call option,SIZE,size) $(call options,SEEDS,seeds))
	$(PY) -m report.tuning runs/$(or $(NAME),tune)

# Three vocabularies, each a run; both architectures with the direct head, whose table is the embedding's.
WIDTHS := 16 32 64 96 128
PIECES := 2048 8192 32768

widths: $(RACE_STAMP) ## how wide must the embedding be for how many pieces? CORPUS=path (a plot; 1 h)
	$(foreach pieces,$(PIECES),$(PY) pretrain.py $(call continued,widths-$(pieces),--vocab-size $(pieces) $(CHINESE) --architectures \
		$(foreach width,$(WIDTHS),$(LOCAL)$(comma)d_embed=$(width) $(NARROW)$(comma)d_embed=$(width)) --budget $(or $(BUDGET),1e13flop) \
		$(call options,SEEDS,seeds)) &&) $(PY) -m report.widths $(foreach pieces,$(PIECES),runs/widths-$(pieces))

WEISSI := $(foreach decay,0.0 0.05 0.2 0.8,weight_decay=$(decay)) $(foreach decay,0.05 0.2 0.8,weight_decay=$(decay)$(comma)regulariser=weissi)

weissi: $(RUN_STAMP) ## weight decay against a decay that no shift of scale evades (training/weissi.py); CORPUS=path; three seeds (1 h)
	$(PY) pretrain.py $(call continued,$(or $(NAME),weissi),--architectures $(foreach decay,$(WEISSI),$(LOCAL)$(comma)$(decay)) \
		--budget $(or $(BUDGET),1e13flop) --seeds $(or $(SEEDS),0 1 2))
	$(PY) -m report.tuning runs/$(or $(NAME),weissi)

LOSSES := ce focal class_balanced logit_adjusted accuracy dice

imbalance: $(RUN_STAMP) ## losses for classes of unequal size, on a task thinned to 50 to 1: DATA=folder CHECKPOINT="a b" TASKS=TNEWS
	$(call named,imbalance)
	$(foreach loss,$(LOSSES),$(PY) -m eval.clue --checkpoints $(call each,$(CHECKPOINT)) $(call option,DATA,data) --tasks $(or $(TASKS),TNEWS) \
		--recipe.imbalance 50 --recipe.loss $(loss) $(call options,SEEDS,seeds) --out $(or $(OUT),runs/imbalance) $(ARGS) &&) true

bench: $(RUN_STAMP) ## microbenchmarks of the kernels against what one would use instead (ARGS=--quick: a minute)
	$(PY) -m kernels.bench $(ARGS)

profile: $(RUN_STAMP) ## where the time of a training step goes
	$(PY) -m training.profile $(ARGS)

lint: $(TEST_STAMP) ## ruff and the type checker alone
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --no-error-summary

format: $(TEST_STAMP) ## rewrite the code in the house format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove the environment and caches; runs stay
	rm -rf .venv $(OLD) .ruff_cache .pytest_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "twostream needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
		"name another one with make PYTHON=python3.x."; exit 2; }
	$(PYTHON) -m venv .venv

# The stamp is made last, so that an interrupted installation is taken up again.
$(RUN_STAMP): | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@rm -f .venv/.run-* && touch $@

$(TEST_STAMP): | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@rm -f .venv/.test-* .venv/.run-* && touch $@ $(RUN_STAMP)

$(BENCH_STAMP): | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@rm -f .venv/.bench-* .venv/.test-* .venv/.run-* && touch $@ $(TEST_STAMP) $(RUN_STAMP)

$(MORE_STAMP): | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-more.txt
	@rm -f .venv/.more-* .venv/.run-* && touch $@ $(RUN_STAMP)

$(EXPORT_STAMP): | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-export.txt
	@rm -f .venv/.export-* .venv/.test-* .venv/.run-* && touch $@ $(TEST_STAMP) $(RUN_STAMP)

$(OLD_STAMP):
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-transformers4.txt
	@rm -f $(OLD)/.made-* && touch $@
