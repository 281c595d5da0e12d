#include "engine/comm/key_board.h"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace gatehouse {
namespace {

constexpr std::chrono::milliseconds kLong(60'000), kShort(20);

TEST(KeyBoardTest, WhatOneSetsAllAreTold) {
  KeyBoard second([](const BoardKey&) {});
  KeyBoard first([&](const BoardKey& key) { second.Put(key); });
  const auto store = second.StoreOf(3);
  std::thread thread([&] {
    store->wait({"a"}, kLong);
    EXPECT_EQ(store->get("a"), std::vector<char>({'x', '\0'}));
  });
  first.StoreOf(3)->set("a", {'x', '\0'});
  thread.join();
}

TEST(KeyBoardTest, KeysComeBeforeTheyAreAskedForAndAreOfTheirEpochOnly) {
  KeyBoard board([](const BoardKey&) {});
  board.Put({2, "a", "of 2"});
  board.Put({3, "a", "of 3"});
  EXPECT_EQ(board.StoreOf(2)->get("a").size(), 4u);
  const auto store = board.StoreOf(3);
  EXPECT_EQ(store->get("a"), std::vector<char>({'o', 'f', ' ', '3'}));
  EXPECT_THROW(store->wait({"b"}, kShort), std::runtime_error);
  board.Put({2, "b", "late"});  // of an epoch that has ended
  EXPECT_THROW(store->wait({"b"}, kShort), std::runtime_error);
}

TEST(KeyBoardTest, NobodyWaitsForAnEpochThatHasEnded) {
  KeyBoard board([](const BoardKey&) {});
  const auto store = board.StoreOf(5);
  std::thread thread([&] { EXPECT_THROW(store->wait({"a"}, kLong), std::runtime_error); });
  board.End(5);
  thread.join();
  EXPECT_THROW(store->wait({"a"}, kLong), std::runtime_error);
}

}  // namespace
}  // namespace gatehouse
