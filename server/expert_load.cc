#include "server/expert_load.h"

#include <algorithm>

namespace gatehouse {
namespace {

constexpr Duration kImbalanceWindow = std::chrono::seconds(10);
constexpr Duration kImbalancePeriod = std::chrono::seconds(1);

void AddTo(std::vector<int64_t>& totals, const std::vector<int64_t>& counts) {
  if (std::all_of(counts.begin(), counts.end(), [](int64_t count) { return count == 0; })) return;
  totals.resize(std::max(totals.size(), counts.size()));  // a policy may bring more devices
  for (size_t i = 0; i < counts.size(); ++i) totals[i] += counts[i];
}

void AddBounds(const BoundsOutcome& bounds, LayerLoadCounts& counts) {
  AddTo(counts.expert_rerouted, bounds.expert_rerouted);
  AddTo(counts.expert_dropped, bounds.expert_dropped);
  AddTo(counts.expert_received, bounds.expert_received);
  for (int i = 0; i < kNumEvictionCauses; ++i) {
    counts.rerouted[i] += bounds.rerouted[i];
    counts.dropped[i] += bounds.dropped[i];
  }
  if (bounds.expert_capacity.empty()) return;
  counts.expert_capacity = bounds.expert_capacity;
  if (!bounds.device_budgets.empty()) counts.device_usage = bounds.device_usage;
  AddTo(counts.device_budgets, bounds.device_budgets);
  AddTo(counts.device_loads, bounds.device_loads);
  counts.pressure += bounds.pressure;
  for (int i = 0; i < kNumBoundCauses; ++i) counts.causes[i] += bounds.causes[i];
}

}  // namespace

ExpertLoad::ExpertLoad(const std::vector<int32_t>& moe_layers, int32_t num_experts) {
  const auto experts = static_cast<size_t>(num_experts);
  for (const int32_t layer : moe_layers) {
    layer_to_slot_.resize(std::max(layer_to_slot_.size(), static_cast<size_t>(layer) + 1), -1);
    layer_to_slot_[static_cast<size_t>(layer)] = static_cast<int32_t>(layers_.size());
    layers_.push_back({.counts = {.layer = layer, .expert_tokens = std::vector<int64_t>(experts)},
                       .window_tokens = std::vector<int64_t>(experts),
                       .previous_window_tokens = std::vector<int64_t>(experts)});
  }
}

int64_t ExpertLoad::Add(const std::vector<LayerLoad>& loads, TimePoint now) {
  int64_t num_active = 0;
  const MutexLock lock(mutex_);
  for (const LayerLoad& load : loads) {
    const auto layer_idx = static_cast<size_t>(load.layer);
    if (layer_idx >= layer_to_slot_.size() || layer_to_slot_[layer_idx] < 0) continue;
    Layer& layer = layers_[static_cast<size_t>(layer_to_slot_[layer_idx])];
    const size_t num_experts = std::min(load.expert_tokens.size(), layer.window_tokens.size());
    for (size_t expert = 0; expert < num_experts; ++expert) {
      const int64_t num_tokens = load.expert_tokens[expert];
      if (num_tokens == 0) continue;  // a decode step touches top_k of up to 256
      ++num_active;
      layer.counts.expert_tokens[expert] += num_tokens;
      layer.window_tokens[expert] += num_tokens;
    }
    for (int mode = 0; mode < kNumTokenModes; ++mode) {
      layer.counts.reports[mode] += load.reports[mode];
    }
    AddBounds(load.bounds, layer.counts);
  }
  if (now - imbalance_time_ >= kImbalancePeriod) UpdateImbalance(now);
  return num_active;
}

void ExpertLoad::UpdateImbalance(TimePoint now) {
  imbalance_time_ = now;
  const bool window_ends = now - window_begin_ >= kImbalanceWindow;
  if (window_ends) window_begin_ = now;
  for (Layer& layer : layers_) {
    int64_t most = 0, sum = 0;
    for (size_t expert = 0; expert < layer.window_tokens.size(); ++expert) {
      const int64_t num_tokens = layer.window_tokens[expert] + layer.previous_window_tokens[expert];
      most = std::max(most, num_tokens);
      sum += num_tokens;
    }
    const auto num_experts = static_cast<double>(layer.window_tokens.size());
    if (sum > 0) {
      layer.counts.imbalance = static_cast<double>(most) * num_experts / static_cast<double>(sum);
    }
    if (window_ends) {
      layer.previous_window_tokens.swap(layer.window_tokens);
      std::fill(layer.window_tokens.begin(), layer.window_tokens.end(), 0);
    }
  }
}

std::vector<LayerLoadCounts> ExpertLoad::Read() const {
  const MutexLock lock(mutex_);
  std::vector<LayerLoadCounts> counts;
  counts.reserve(layers_.size());
  for (const Layer& layer : layers_) counts.push_back(layer.counts);
  return counts;
}

}  // namespace gatehouse
