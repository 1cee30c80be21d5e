// fluxd's settings, as LoadConfig reads them. (tests/e2e/fluxd_test.cc has those that a running
// fluxd shows.)
#include "engine/server/config.h"

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace flux::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Texts = std::map<std::string, std::string>;

absl::StatusOr<Config> Load(const std::string& yaml, const Texts& flags = {},
                            const Texts& environment = {}) {
  const std::string file = ::testing::TempDir() + "/config_test.yaml";
  std::ofstream(file) << yaml;
  const auto variable = [&](const std::string& name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  };
  Config config;
  if (absl::Status status = LoadConfig(flags, variable, file, &config); !status.ok()) return status;
  return config;
}

constexpr char kRules[] = R"(
retention:
  - {workflow: heartbeat, keep: 1h}
  - {status: failed, keep: 2160h}
  - {workflow: audit, status: terminated, keep: 0}
)";

TEST(Retention, IsOneDurationOrAListOfRules) {
  auto config = Load("retention: 48h\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.retention, absl::Hours(48));
  EXPECT_THAT(config->engine.retention_rules, IsEmpty());

  config = Load(kRules);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.retention, absl::Hours(720)) << "of what no rule fits";
  const std::vector<engine::RetentionRule>& rules = config->engine.retention_rules;
  ASSERT_THAT(rules, SizeIs(3));
  EXPECT_EQ(rules[0].workflow, "heartbeat");
  EXPECT_EQ(rules[0].status, v1::EXECUTION_STATUS_UNSPECIFIED);
  EXPECT_EQ(rules[0].keep, absl::Hours(1));
  EXPECT_EQ(rules[1].workflow, "");
  EXPECT_EQ(rules[1].status, v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(rules[1].keep, absl::Hours(2160));
  EXPECT_EQ(rules[2].workflow, "audit");
  EXPECT_EQ(rules[2].status, v1::EXECUTION_STATUS_TERMINATED);
  EXPECT_EQ(rules[2].keep, absl::ZeroDuration());
}

TEST(Retention, OfAFlagOrVariableReplacesTheRules) {
  auto config = Load(kRules, {{"retention", "5h"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.retention, absl::Hours(5));
  EXPECT_THAT(config->engine.retention_rules, IsEmpty());
  config = Load(kRules, {}, {{"FLUX_RETENTION", "6h"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.retention, absl::Hours(6));
  EXPECT_THAT(config->engine.retention_rules, IsEmpty());
}

TEST(Retention, WrongRulesAreRefusedByPlace) {
  struct Case {
    const char* rules;
    std::vector<std::string> words;  // all in the message
  };
  const std::vector<Case> cases = {
      {"- 1h", {"line 2", "rule 1 of retention", "not a map of workflow, status, keep"}},
      {"- {keep: 1h}\n- {status: failed, keep: 2h}", {"line 3", "rule 2", "never counts"}},
      {"- {status: failed}", {"rule 1", "`keep`"}},
      {"- {status: failed, keep: soon}", {"keep", "\"soon\"", "1h30m"}},
      {"- {status: failed, keep: -1h}", {"keep", "-1h"}},
      {"- {status: running, keep: 1h}", {"status", "\"running\"", "completed", "skipped"}},
      {"- {stage: failed, keep: 1h}", {"\"stage\"", "workflow, status, keep"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.rules);
    const auto config = Load(std::string("retention:\n") + c.rules + "\n");
    ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    for (const std::string& word : c.words) {
      EXPECT_THAT(std::string(config.status().message()), HasSubstr(word));
    }
  }
}

TEST(Guide, ItsConfigurationsAreAccepted) {
  std::ifstream file(GUIDE_PATH);
  std::stringstream text;
  text << file.rdbuf();
  const std::string guide = text.str();
  const std::string fence = "```yaml\n";
  std::string all;
  for (size_t at = guide.find(fence); at != std::string::npos; at = guide.find(fence, at + 1)) {
    const size_t begin = at + fence.size();
    const std::string yaml = guide.substr(begin, guide.find("```", begin) - begin);
    const auto config = Load(yaml);
    EXPECT_TRUE(config.ok()) << config.status() << "\n" << yaml;
    all += yaml;
  }
  EXPECT_THAT(all, AllOf(HasSubstr("queues:"), HasSubstr("retention:")));
}

}  // namespace
}  // namespace flux::server
