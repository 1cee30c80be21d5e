// Deleted executions leave the disk: fluxd's data directory shrinks, with nothing else to do.
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

constexpr int kDeleted = 200;
constexpr int kKept = 10;
constexpr size_t kInputBytes = 300'000;

// Text that compression makes no smaller.
std::string Text(int seed) {
  static constexpr char kLetters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
  std::string text(kInputBytes, '\0');
  uint64_t state = static_cast<uint64_t>(seed) * 2 + 1;
  for (char& c : text) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c = kLetters[state >> 58];
  }
  return text;
}

class Space : public EndToEnd {
 protected:
  Finished Fluxctl(std::vector<std::string> arguments) {
    return RunToEnd(FLUXCTL_BINARY, std::move(arguments), {{"FLUX_ADDRESS", fluxd_.target()}});
  }

  void Start(const std::string& id, const std::string& tenant, int seed) {
    v1::StartWorkflowRequest request = StartOf(kGated, id, Text(seed));
    (*request.mutable_labels())["tenant"] = tenant;
    const auto started = api().Start(request);
    ASSERT_TRUE(started.ok()) << started.status();
  }

  uint64_t DatabaseBytes() const {
    uint64_t bytes = 0;
    std::error_code error;
    for (const auto& file : std::filesystem::directory_iterator(fluxd_.data() + "/db", error)) {
      std::error_code gone;
      const uint64_t size = file.file_size(gone);
      if (!gone) bytes += size;
    }
    return bytes;
  }
};

TEST_F(Space, OfDeletedExecutionsComesBackByItself) {
  StartFluxd({{"reclaim-interval", "100ms"}});
  const auto hash = api().Put(DefinitionOf(kGated));
  ASSERT_TRUE(hash.ok()) << hash.status();
  for (int i = 0; i < kDeleted; ++i) Start(absl::StrCat("gone-", i), "gone", i);
  for (int i = 0; i < kKept; ++i) Start(absl::StrCat("kept-", i), "kept", kDeleted + i);
  const Finished ended =
      Fluxctl({"workflow", "terminate", "--query", "workflow = \"gated\"", "-y"});
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  const uint64_t before = DatabaseBytes();
  ASSERT_GE(before, (kDeleted + kKept) * kInputBytes);

  const Finished deleted =
      Fluxctl({"workflow", "delete", "--query", "label.tenant = \"gone\"", "-y"});
  ASSERT_EQ(deleted.exit_code, 0) << deleted.log;
  EXPECT_TRUE(Eventually([&] { return DatabaseBytes() < before / 5; })) << DatabaseBytes();

  ASSERT_EQ(api().Count().value_or(0), uint64_t{kKept});
  KillFluxd();
  StartFluxd();
  for (int i = 0; i < kKept; ++i) {
    const std::string id = absl::StrCat("kept-", i);
    const auto described = api().Describe(Ref(id));
    ASSERT_TRUE(described.ok()) << described.status();
    ASSERT_EQ(described->inputs_size(), 1);
    EXPECT_TRUE(described->inputs(0).data().find(Text(kDeleted + i)) != std::string::npos)
        << id << " has lost its input";
  }
}

}  // namespace
}  // namespace flux::e2e
