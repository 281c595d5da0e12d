#include "engine/model/file_stamp.h"

#include <gtest/gtest.h>

#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

std::vector<FileStamp> Stamped(const std::vector<std::string>& paths, ThreadPool& pool) {
  std::vector<FileStamp> stamps = *StampFiles(paths);
  for (size_t i = 0; i < paths.size(); ++i) {
    EXPECT_TRUE(ReadChecksum(paths[i], pool, stamps[i]).ok());
  }
  return stamps;
}

TEST(CheckUnchangedTest, AnOldFileIsKnownWithoutReadingIt) {
  ThreadPool pool(2);
  const std::vector<std::string> paths = {GATEHOUSE_SOURCE_DIR "/LICENSE"};
  std::vector<FileStamp> stamps = Stamped(paths, pool);
  ASSERT_FALSE(stamps[0].identity.empty());
  stamps[0].checksum ^= 1;  // had it been read, this would show
  EXPECT_TRUE(CheckUnchanged(paths, pool, stamps).ok());
  stamps[0].identity += "1";
  EXPECT_FALSE(CheckUnchanged(paths, pool, stamps).ok());
}

// The grain of a clock may hide a change right after the look.
TEST(StampFilesTest, AYoungFileHasNoIdentity) {
  const TempDir dir;
  WriteFile(dir.path() + "/a", "text");
  EXPECT_EQ(StampFiles({dir.path() + "/a"})->front().identity, "");
}

TEST(CheckUnchangedTest, NamesTheFileWhoseContentsChanged) {
  const TempDir dir;
  ThreadPool pool(2);
  const std::vector<std::string> paths = {dir.path() + "/a", dir.path() + "/b"};
  std::string bytes((size_t{3} << 20) + 5, 'x');  // several pieces, the last one short
  WriteFile(paths[0], "text");
  WriteFile(paths[1], bytes);
  const std::vector<FileStamp> stamps = Stamped(paths, pool);
  EXPECT_TRUE(CheckUnchanged(paths, pool, stamps).ok());
  for (const size_t at : {size_t{0}, size_t{2} << 20, bytes.size() - 1}) {
    bytes[at] = 'y';
    WriteFile(paths[1], bytes);
    EXPECT_EQ(CheckUnchanged(paths, pool, stamps).message(), "b has changed") << at;
    bytes[at] = 'x';
  }
  WriteFile(paths[1], bytes);
  EXPECT_TRUE(CheckUnchanged(paths, pool, stamps).ok());
}

TEST(CheckUnchangedTest, AnotherNumberOfFilesOrAMissingOneIsAChange) {
  const TempDir dir;
  ThreadPool pool(1);
  const std::string path = dir.path() + "/a";
  WriteFile(path, "text");
  const std::vector<FileStamp> stamps = Stamped({path}, pool);
  EXPECT_FALSE(CheckUnchanged({path, path}, pool, stamps).ok());
  EXPECT_FALSE(CheckUnchanged({path + "2"}, pool, stamps).ok());
}

}  // namespace
}  // namespace gatehouse
