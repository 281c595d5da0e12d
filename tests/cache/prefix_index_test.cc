#include "engine/cache/prefix_index.h"

#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"

namespace gatehouse {
namespace {

using Tokens = std::vector<int32_t>;

uint64_t AlwaysTheSame(uint64_t, const BlockContent&) { return 42; }

PrefixIndexSetup SetupOf(BlockHash hash) {
  return {.num_blocks = 8, .block_tokens = 4, .hash_seed = 1, .hash = hash};
}

// Everything must hold whether contents have hashes of their own or all collide.
class PrefixIndexTest : public testing::TestWithParam<BlockHash> {
 protected:
  PrefixIndex index_{SetupOf(GetParam())};
};

INSTANTIATE_TEST_SUITE_P(Hashes, PrefixIndexTest, testing::Values(HashBlock, AlwaysTheSame),
                         [](const auto& info) {
                           return info.param == HashBlock ? "Real" : "AllCollide";
                         });

TEST_P(PrefixIndexTest, FindsAChainBlockByBlock) {
  const Tokens first = {1, 2, 3, 4}, second = {5, 6, 7, 8};
  EXPECT_FALSE(index_.Find({.scope = "a", .tokens = first}).has_value());
  const ContentId first_content = index_.Add({.scope = "a", .tokens = first}, 3);
  const ContentId second_content = index_.Add({.parent = first_content, .tokens = second}, 5);
  const auto found = index_.Find({.scope = "a", .tokens = first});
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->block_id, 3);
  EXPECT_EQ(found->content, first_content);
  const auto next = index_.Find({.parent = found->content, .tokens = second});
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->block_id, 5);
  EXPECT_EQ(next->content, second_content);
  EXPECT_EQ(index_.CheckInvariants(), absl::OkStatus());
}

TEST_P(PrefixIndexTest, TellsApartWhatDiffersInOneOfTokensParentAndScope) {
  const Tokens tokens = {1, 2, 3, 4}, other_tokens = {1, 2, 3, 5};
  const ContentId content = index_.Add({.scope = "a", .tokens = tokens}, 0);
  EXPECT_FALSE(index_.Find({.scope = "a", .tokens = other_tokens}).has_value());
  EXPECT_FALSE(index_.Find({.scope = "b", .tokens = tokens}).has_value());
  EXPECT_FALSE(index_.Find({.scope = "", .tokens = tokens}).has_value());
  EXPECT_FALSE(index_.Find({.parent = content, .tokens = tokens}).has_value());
  const ContentId child = index_.Add({.parent = content, .tokens = tokens}, 1);
  EXPECT_EQ(index_.Find({.parent = content, .tokens = tokens})->content, child);
  EXPECT_EQ(index_.Find({.scope = "a", .tokens = tokens})->content, content);
  EXPECT_FALSE(index_.Find({.parent = child, .tokens = tokens}).has_value());
}

TEST_P(PrefixIndexTest, WhatComesBackIsAnotherContent) {
  const Tokens tokens = {1, 2, 3, 4};
  const ContentId content = index_.Add({.scope = "a", .tokens = tokens}, 0);
  index_.Forget(0);
  EXPECT_FALSE(index_.Holds(0));
  EXPECT_FALSE(index_.Find({.scope = "a", .tokens = tokens}).has_value());
  EXPECT_NE(index_.Add({.scope = "a", .tokens = tokens}, 1), content);
  index_.Forget(0);  // holds nothing: no-op
  EXPECT_EQ(index_.num_held(), 1);
  EXPECT_EQ(index_.CheckInvariants(), absl::OkStatus());
}

TEST_P(PrefixIndexTest, SaysWhenAParentIsGone) {
  const Tokens tokens = {1, 2, 3, 4};
  const ContentId content = index_.Add({.scope = "a", .tokens = tokens}, 0);
  index_.Add({.parent = content, .tokens = tokens}, 1);
  index_.Forget(0);
  EXPECT_EQ(index_.CheckInvariants().code(), absl::StatusCode::kInternal);
}

// The oracle is a map from (parent, scope, tokens) to block.
TEST_P(PrefixIndexTest, AgreesWithAMapUnderRandomUse) {
  constexpr int kSeed = 3;
  std::mt19937 random(kSeed);
  using Key = std::tuple<ContentId, std::string, Tokens>;
  std::map<Key, PrefixIndex::Found> known;
  for (int step = 0; step < 5000; ++step) {
    const auto block_id = static_cast<int32_t>(random() % 8);
    Key key = {kNoContent, random() % 2 == 0 ? "a" : "b", Tokens(4, random() % 3)};
    if (!known.empty() && random() % 2 == 0) {
      auto any = known.begin();
      std::advance(any, random() % known.size());
      std::get<0>(key) = any->second.content;
      std::get<1>(key) = "";
    }
    const BlockContent content = {std::get<0>(key), std::get<1>(key), std::get<2>(key)};
    const auto found = index_.Find(content);
    const auto expected = known.find(key);
    ASSERT_EQ(found.has_value(), expected != known.end()) << "step " << step << " seed " << kSeed;
    if (found.has_value()) {
      ASSERT_EQ(found->block_id, expected->second.block_id);
      ASSERT_EQ(found->content, expected->second.content);
    } else if (!index_.Holds(block_id)) {
      known[key] = {block_id, index_.Add(content, block_id)};
    } else {
      index_.Forget(block_id);
      std::erase_if(known, [&](const auto& entry) { return entry.second.block_id == block_id; });
    }
    ASSERT_EQ(index_.num_held(), static_cast<int32_t>(known.size()));
  }
}

TEST(PrefixIndexDeathTest, AbortsWhenABlockIsGivenTwoContents) {
  PrefixIndex index(SetupOf(HashBlock));
  const Tokens tokens = {1, 2, 3, 4}, other_tokens = {5, 6, 7, 8};
  index.Add({.scope = "a", .tokens = tokens}, 0);
  EXPECT_DEATH(index.Add({.scope = "a", .tokens = other_tokens}, 0), "another content");
}

TEST(HashBlockTest, DependsOnEveryPart) {
  const Tokens tokens = {1, 2, 3}, swapped = {2, 1, 3}, other_last = {1, 2, 4};
  const uint64_t hash = HashBlock(1, {.parent = 5, .scope = "a", .tokens = tokens});
  EXPECT_NE(hash, HashBlock(2, {.parent = 5, .scope = "a", .tokens = tokens}));
  EXPECT_NE(hash, HashBlock(1, {.parent = 6, .scope = "a", .tokens = tokens}));
  EXPECT_NE(hash, HashBlock(1, {.parent = 5, .scope = "b", .tokens = tokens}));
  EXPECT_NE(hash, HashBlock(1, {.parent = 5, .scope = "a", .tokens = swapped}));
  EXPECT_NE(hash, HashBlock(1, {.parent = 5, .scope = "a", .tokens = other_last}));
}

}  // namespace
}  // namespace gatehouse
