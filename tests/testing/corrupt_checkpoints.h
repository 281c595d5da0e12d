// Model folders with exactly one thing wrong each, and what the one line that refuses them must
// say. For every program that loads a model.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {

struct CorruptCheckpoint {
  std::string kind;      // header, index, ..: the class of the fault
  std::string name;      // distinct within the kind
  std::string file;      // the message names this file
  std::string fragment;  // and contains this
  std::function<void(CheckpointToWrite& checkpoint)> spoil;       // before it is written
  std::function<void(const std::string& dir)> spoil_folder = {};  // after
  nlohmann::json config = {};  // of the intact model; null: the tiny Qwen3-MoE
};

std::vector<CorruptCheckpoint> CorruptCheckpoints();
std::vector<CorruptCheckpoint> CorruptConfigs();   // those of them in config.json and beside it
std::vector<CorruptCheckpoint> CorruptFamilies();  // those of the other families
// Small intact configurations of the other families.
std::vector<nlohmann::json> TinyFamilyConfigs();
// A tiny model, spoilt; of two shards for the kind "index", else of one file.
void WriteCorruptCheckpoint(const CorruptCheckpoint& corrupt, const std::string& dir);

}  // namespace gatehouse
