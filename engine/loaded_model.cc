#include "engine/loaded_model.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/cache/kv_cache.h"
#include "engine/comm/in_process.h"
#include "engine/faulty_rank.h"
#include "engine/group_worker.h"
#include "engine/local_rank.h"
#include "engine/model/checkpoint.h"
#include "engine/model/generation_config.h"
#include "engine/model/layer_tensors.h"
#include "engine/model/model_config.h"
#include "engine/model/model_hash.h"
#include "engine/model/model_tensors.h"
#include "engine/model/packed_cache.h"
#include "engine/model/weight_loader.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Every running sequence's next token in one call; a prompt's log-probabilities take as many calls
// as they need, of at least this many rows.
constexpr int64_t kMinLogitRows = 64;

TransformerShape ShapeOf(const ModelConfig& config, const SchedulerOptions& scheduler,
                         int num_ranks) {
  const bool has_dense = config.num_moe_layers() < config.num_layers;
  const bool has_moe = config.num_moe_layers() > 0;
  return {.hidden_size = config.hidden_size,
          .vocab_size = config.vocab_size,
          .attention = AttentionOptionsOf(config, 0),
          .latent = LatentOptionsOf(config),
          .expert_intermediate_size = has_moe ? config.moe.intermediate_size : 0,
          .dense_intermediate_size = has_dense ? config.dense_intermediate_size : 0,
          .shared_intermediate_size = has_moe ? config.moe.shared_intermediate_size : 0,
          .num_experts = has_moe ? config.moe.num_experts : 0,
          .top_k = has_moe ? config.moe.gate.top_k : 0,
          .norm_eps = config.norm_eps,
          .embedding_scale = config.embedding_scale,
          .residual_scale = config.residual_scale,
          .logit_scale = config.logit_scale,
          .rotary_dim = config.attention.rope.rotary_dim,
          .num_positions = scheduler.max_context,
          .max_rows = scheduler.max_step_tokens,
          .max_logit_rows = std::min<int64_t>(
              std::max<int64_t>(kMinLogitRows, MaxRunning(scheduler)), scheduler.max_step_tokens),
          .num_ranks = num_ranks};
}

// Latent attention keeps one row a token, of which the values are a part.
KvShape KvShapeOf(const AttentionConfig& attention, const CacheOptions& cache) {
  const LatentConfig& latent = attention.latent;
  const bool is_latent = latent.kv_rank > 0;
  return {.num_kv_heads = is_latent ? 1 : attention.num_kv_heads,
          .head_dim = is_latent ? latent.kv_rank + latent.rope_dim : attention.head_dim,
          .block_tokens = cache.block_tokens,
          .type = cache.kv_type,
          .value_prefix = latent.kv_rank};
}

// The back end's own memory for the largest product of a step.
size_t ScratchBytes(const TransformerShape& shape, const WeightFormats& formats,
                    const Backend& backend) {
  const WeightFormat dense = formats.dense.value_or(WeightFormat::kF32);
  const WeightFormat experts = formats.experts.value_or(WeightFormat::kF32);
  const auto ffn = [&](int64_t num_assignments, int64_t intermediate_size, WeightFormat format) {
    return backend.ExpertFfnScratchBytes({.num_rows = shape.max_rows,
                                          .num_assignments = num_assignments,
                                          .hidden_size = shape.hidden_size,
                                          .intermediate_size = intermediate_size},
                                         format);
  };
  const LatentAttentionOptions& latent = shape.latent;
  const int64_t widest =
      std::max({shape.hidden_size, shape.attention.q_size(), int64_t{latent.q_rank},
                int64_t{latent.num_heads} * latent.value_dim});
  return std::max({backend.GemmScratchBytes(shape.max_rows, widest, dense),
                   ffn(shape.max_rows, shape.dense_intermediate_size, dense),
                   ffn(shape.max_rows, shape.shared_intermediate_size, dense),
                   ffn(shape.max_rows * shape.top_k, shape.expert_intermediate_size, experts)});
}

absl::StatusOr<MemoryPlan> PlanFor(const EngineConfig& config, const ModelConfig& model,
                                   int64_t workspace_bytes, const KvShape& kv,
                                   const WeightBytes& weights, const Backends& backends) {
  return PlanMemory(
      {.expert_weight_bytes = weights.experts,
       .dense_weight_bytes = weights.dense,
       .workspace_bytes = workspace_bytes,
       .num_ranks = static_cast<int>(backends.size()),
       .kv_block_bytes = static_cast<int64_t>(backends[0]->KvBlockBytes(kv)) * model.num_layers,
       .block_tokens = kv.block_tokens,
       .max_sequences = config.scheduler.max_sequences,
       .max_context = config.scheduler.max_context,
       .kv_cache_bytes = config.cache.kv_cache_bytes,
       .available_bytes = AvailableMemoryBytes()});
}

// The last component of the folder, for "dir/" and "." too.
std::string NameOf(const std::string& model_dir) {
  const auto path = std::filesystem::absolute(model_dir).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

// What is packed follows from the configuration and the checkpoint's files.
std::optional<PackedCache> OpenCache(const ModelOptions& options, const Checkpoint& checkpoint,
                                     const WeightFormatNames& formats, Backend& backend) {
  if (options.packed_cache.empty()) return std::nullopt;
  std::vector<std::string> files = checkpoint.Files();
  files.push_back(options.model_dir + "/config.json");
  return PackedCache::Open({.dir = options.packed_cache,
                            .model_name = NameOf(options.model_dir),
                            .model_files = std::move(files),
                            .expert_format = formats.experts,
                            .dense_format = formats.dense},
                           backend);
}

bool RenormalisesWeights(const GateRecipe& gate) {
  return gate.renormalise || gate.score == GateScore::kSoftmaxOfChosen;
}

ModelDescription Describe(const std::string& model_dir, const ModelConfig& config,
                          const GenerationConfig& generation, const WeightFormatNames& formats) {
  const ParameterCount parameters = CountParameters(config);
  ModelDescription description{.name = NameOf(model_dir),
                               .family = config.family,
                               .num_parameters = parameters.total(),
                               .num_active_parameters = parameters.active,
                               .num_layers = config.num_layers,
                               .hidden_size = config.hidden_size,
                               .vocab_size = config.vocab_size,
                               .num_experts = config.moe.num_experts,
                               .top_k = config.moe.gate.top_k,
                               .eos_token_ids = generation.eos_token_ids,
                               .renormalises_weights = RenormalisesWeights(config.moe.gate),
                               .has_shared_expert = config.moe.shared_intermediate_size > 0,
                               .expert_weight_format = formats.experts,
                               .dense_weight_format = formats.dense,
                               .default_sampling = generation.sampling,
                               .default_max_new_tokens = generation.max_new_tokens};
  for (int32_t l = 0; l < config.num_layers; ++l) {
    if (config.is_moe_layer[l]) description.moe_layers.push_back(l);
  }
  return description;
}

// A tokenizer may know fewer ids than the model (tables are padded), never more.
absl::Status CheckVocabulary(const std::string& dir, const Tokenizer& tokenizer,
                             const ModelConfig& model) {
  if (tokenizer.vocab_size() <= model.vocab_size) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("%s/tokenizer.json: highest token id: got %d, expected below vocab_size %d",
                      dir, tokenizer.vocab_size() - 1, model.vocab_size));
}

std::vector<std::string> WarningsOf(const Checkpoint& checkpoint, const ModelConfig& model,
                                    const GenerationConfig& generation) {
  std::vector<std::string> warnings;
  const std::vector<std::string> unused = UnusedTensors(checkpoint, model);
  if (!unused.empty()) {
    warnings.push_back(
        absl::StrFormat("%d tensors that the model does not use are ignored, %s first",
                        unused.size(), unused.front()));
  }
  for (const std::string& key : model.ignored_keys) {
    warnings.push_back("config.json: " + key + " is ignored");
  }
  for (const std::string& key : generation.ignored_keys) {
    warnings.push_back("generation_config.json: " + key + " is ignored");
  }
  return warnings;
}

absl::StatusOr<int32_t> MaxContextInForce(const SchedulerOptions& scheduler,
                                          const ModelConfig& model) {
  if (scheduler.max_context == 0) return model.max_context;
  if (scheduler.max_context > model.max_context) {
    return absl::InvalidArgumentError(absl::StrFormat("max_context: got %d, the model has %d",
                                                      scheduler.max_context, model.max_context));
  }
  return scheduler.max_context;
}

constexpr int kTracedRanks = 8;  // behind the chosen ones: what a reroute looks at by default

TraceHeader TraceHeaderOf(const ModelConfig& model, const std::string& hash) {
  const int32_t top_k = model.moe.gate.top_k;
  return {.model_hash = hash,
          .num_experts = model.moe.num_experts,
          .num_moe_layers = model.num_moe_layers(),
          .top_k = top_k,
          .num_ranked = std::min(top_k + kTracedRanks, model.moe.num_experts)};
}

// A rank without rows waits while another attends over a long context: a thread that is alive is
// late, not lost.
constexpr Duration kInProcessDeadline = std::chrono::minutes(10);

JoinGroup InProcessJoin() {
  const auto rendezvous = std::make_shared<InProcessRendezvous>(kInProcessDeadline);
  return [rendezvous](const Membership& membership, int rank) {
    return rendezvous->Join(membership, rank);
  };
}

RankSettings SettingsOf(const LoadedParts& parts) {
  const EngineConfig& config = parts.config;
  return {.num_ranks = 1 + config.num_other_ranks,
          .model_hash = parts.description.hash,
          .expert_weight_format = parts.description.expert_weight_format,
          .dense_weight_format = parts.description.dense_weight_format,
          .kv_type = config.cache.kv_type,
          .block_tokens = config.cache.block_tokens,
          .kv_block_bytes = parts.memory_plan.kv_block_bytes,
          .num_kv_blocks = parts.memory_plan.num_kv_blocks,
          .max_sequences = config.scheduler.max_sequences,
          .max_step_tokens = config.scheduler.max_step_tokens,
          .max_context = config.scheduler.max_context};
}

// Those of this process first. Takes parts.ranks.
absl::StatusOr<std::vector<std::unique_ptr<RankPeer>>> MakeRanks(LoadedParts& parts,
                                                                 RemoteRanks* others) {
  GATEHOUSE_CHECK(others == nullptr || parts.ranks.size() == 1) << parts.ranks.size() << " ranks";
  JoinGroup join;
  if (others != nullptr) {
    join = others->join();
  } else if (parts.ranks.size() > 1) {
    join = InProcessJoin();
  }
  std::vector<std::unique_ptr<RankPeer>> ranks;
  for (RankParts& rank : parts.ranks) {
    ranks.push_back(std::make_unique<LocalRank>(static_cast<int>(ranks.size()), std::move(rank),
                                                parts.model.num_moe_layers(), join));
  }
  if (others == nullptr) return ranks;
  GATEHOUSE_ASSIGN_OR_RETURN(auto remote, others->Start(SettingsOf(parts)));
  for (auto& rank : remote) ranks.push_back(std::move(rank));
  return ranks;
}

}  // namespace

absl::StatusOr<LoadedParts> LoadParts(const EngineConfig& requested, Backends backends) {
  GATEHOUSE_CHECK(!backends.empty());
  const int num_ranks = static_cast<int>(backends.size()) + requested.num_other_ranks;
  Backend& packer = *backends[0];
  const std::string& dir = requested.model.model_dir;
  LoadedParts loaded{.config = requested};
  GATEHOUSE_ASSIGN_OR_RETURN(loaded.model, LoadModelConfig(dir));
  const ModelConfig& model = loaded.model;
  GATEHOUSE_ASSIGN_OR_RETURN(const GenerationConfig generation, LoadGenerationConfig(dir, model));
  GATEHOUSE_ASSIGN_OR_RETURN(Checkpoint opened, Checkpoint::Open(dir));
  const auto checkpoint = std::make_shared<const Checkpoint>(std::move(opened));
  GATEHOUSE_ASSIGN_OR_RETURN(const TensorViews views, FindTensors(*checkpoint, model));
  const ModelTensors tensors = GroupTensors(model, views);

  GATEHOUSE_ASSIGN_OR_RETURN(loaded.tokenizer, LoadTokenizer(dir));
  GATEHOUSE_RETURN_IF_ERROR(CheckVocabulary(dir, *loaded.tokenizer, model));
  GATEHOUSE_ASSIGN_OR_RETURN(loaded.chat_template, LoadChatTemplate(dir));
  GATEHOUSE_ASSIGN_OR_RETURN(loaded.config.scheduler.max_context,
                             MaxContextInForce(requested.scheduler, model));
  const WeightFormats formats{.experts = requested.model.expert_weights,
                              .dense = requested.model.dense_weights};
  const TransformerShape shape = ShapeOf(model, loaded.config.scheduler, num_ranks);
  const KvShape kv = KvShapeOf(model.attention, requested.cache);
  const WeightBytes weight_bytes = MeasureWeights(tensors, formats, packer);
  const size_t scratch_bytes = ScratchBytes(shape, formats, packer);
  const int64_t rope_bytes = shape.num_positions * shape.rotary_dim * int64_t{sizeof(float)};
  const int64_t rank_bytes =
      Transformer::WorkspaceBytes(shape) + static_cast<int64_t>(scratch_bytes);
  GATEHOUSE_ASSIGN_OR_RETURN(
      loaded.memory_plan,
      PlanFor(loaded.config, model, static_cast<int64_t>(backends.size()) * rank_bytes + rope_bytes,
              kv, weight_bytes, backends));

  std::optional<PackedCache> cache =
      OpenCache(requested.model, *checkpoint, NameFormats(tensors, formats), packer);
  GATEHOUSE_ASSIGN_OR_RETURN(TransformerWeights weights,
                             LoadWeights({model, checkpoint, tensors, formats, shape.num_positions,
                                          cache ? &*cache : nullptr},
                                         packer));
  const auto shared_weights = std::make_shared<const TransformerWeights>(std::move(weights));
  loaded.cost = CostOfModel(model, tensors, formats, kv, packer);
  for (std::unique_ptr<Backend>& backend : backends) {
    GATEHOUSE_RETURN_IF_ERROR(backend->ReserveScratch(scratch_bytes));
    GATEHOUSE_ASSIGN_OR_RETURN(auto transformer,
                               Transformer::Create(*backend, shape, shared_weights));
    GATEHOUSE_ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(*backend, kv, model.num_layers,
                                                              loaded.memory_plan.num_kv_blocks));
    loaded.ranks.push_back({std::move(backend), std::move(transformer), std::move(cache)});
  }
  loaded.description = Describe(dir, model, generation, NameFormats(tensors, formats));
  loaded.description.hash = HashModel(model, views);
  checkpoint->DropPages();  // which the hash has read again
  if (cache) loaded.description.packed_cache = cache->Finish();
  loaded.description.warnings = WarningsOf(*checkpoint, model, generation);
  loaded.description.has_chat_template = loaded.chat_template != nullptr;
  loaded.description.max_context = loaded.config.scheduler.max_context;
  return loaded;
}

absl::StatusOr<LoadedModel> LoadModel(const EngineConfig& config, Backends backends,
                                      RemoteRanks* others,
                                      const std::shared_ptr<FaultBoard>& faults) {
  GATEHOUSE_ASSIGN_OR_RETURN(LoadedParts parts, LoadParts(config, std::move(backends)));
  std::unique_ptr<RouteRecorder> recorder;
  if (!config.trace.file.empty()) {
    GATEHOUSE_ASSIGN_OR_RETURN(
        recorder,
        RouteRecorder::Create(config.trace, TraceHeaderOf(parts.model, parts.description.hash)));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(auto ranks, MakeRanks(parts, others));
  const auto num_ranks = static_cast<int>(ranks.size());
  for (int r = 0; faults != nullptr && r < num_ranks; ++r) {
    ranks[r] = std::make_unique<FaultyRank>(r, std::move(ranks[r]), faults);
  }
  const auto num_moe_layers = static_cast<size_t>(parts.model.num_moe_layers());
  auto worker = std::make_unique<GroupWorker>(GroupWorkerParts{
      .ranks = std::move(ranks),
      .cost = std::move(parts.cost),
      .recorder = std::move(recorder),
      .placements = {num_moe_layers, LinearPlacement(parts.model.moe.num_experts, num_ranks)}});
  if (worker->needs_regroup()) GATEHOUSE_RETURN_IF_ERROR(worker->Regroup().status());
  return LoadedModel{.config = std::move(parts.config),
                     .description = std::move(parts.description),
                     .memory_plan = parts.memory_plan,
                     .tokenizer = std::move(parts.tokenizer),
                     .chat_template = std::move(parts.chat_template),
                     .worker = std::move(worker)};
}

}  // namespace gatehouse
