// The examples of docs/GUIDE.md: compiled and run here and in guide_client_test.cc; guide_charts.h
// has what both use. The guide's blocks are these regions to the letter; the last test compares
// them. A region begins with a line "// guide: NAME" and ends with "// guide end".
#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "flux/continue.h"
#include "flux/testing.h"
#include "flux/workflow.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/examples/guide_charts.h"

namespace charts {
namespace {

using ::flux::testing::TestRun;
using ::testing::ElementsAre;

inline constexpr flux::ErrorType kRejected{"rejected"};
inline constexpr flux::ErrorType kBusy{"busy"};
inline constexpr flux::Task<bool(Page)> kIsBlank{"charts.is_blank"};
inline constexpr flux::Task<std::string(std::string)> kPublish{"charts.publish"};
inline constexpr flux::Task<void(std::string, std::string)> kUnpublish{"charts.unpublish"};
inline constexpr flux::Task<int64_t(std::string)> kPrice{"charts.price"};
inline constexpr flux::Task<std::string(std::string, int64_t)> kAsk{"charts.ask"};
inline constexpr flux::Task<std::string(std::string, std::optional<int64_t>)> kLabel{
    "charts.label"};
inline constexpr flux::Task<std::string(std::string)> kPlan{"charts.plan"};

class GuideTest : public ::testing::Test {
 protected:
  GuideTest() {
    tasks.Register(kSplit, [](const std::string& chart) {
      std::vector<Page> pages;
      for (size_t i = 0; i < chart.size(); ++i) {
        pages.push_back({static_cast<int>(i), std::string(1, chart[i])});
      }
      return pages;
    });
    tasks.Register(kCode, [](const Page& page) -> absl::StatusOr<std::string> {
      if (page.text == "!") return kBadPage("page " + std::to_string(page.number));
      return page.text + page.text;
    });
    tasks.Register(kMerge, [](const std::vector<std::string>& codes) {
      std::string merged;
      for (const std::string& code : codes) merged += code;
      return merged;
    });
    tasks.Register(kIsBlank, [](const Page& page) { return page.text == " "; });
    tasks.Register(kPublish, [](const std::string& text) { return "http://" + text; });
    tasks.Register(kUnpublish, [this](const std::string&, const std::string& where) {
      unpublished.push_back(where);
    });
    tasks.Register(kPrice, [](const std::string& text) -> flux::Outcome<int64_t> {
      if (text.empty()) return flux::Skip{};
      return static_cast<int64_t>(text.size());
    });
    tasks.Register(kAsk, [](const std::string& shop, int64_t price) {
      return shop + ":" + std::to_string(price);
    });
    tasks.Register(kLabel, [](const std::string& text, std::optional<int64_t> price) {
      return text + (price.has_value() ? " " + std::to_string(*price) : " for free");
    });
  }

  flux::TaskSet tasks;
  std::vector<std::string> unpublished;
};

TEST_F(GuideTest, Workflow) {
  const auto outcome = TestRun(tasks).Run(kCodeChart, "abc");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, "aabbcc");
}

// guide: sleep
inline constexpr flux::Workflow<std::string(std::string)> kLater{
    "later", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto night = g.Sleep(absl::Hours(8));
      return g.Call(kPublish, chart).After(night);
    }};
// guide end

TEST_F(GuideTest, Sleep) { EXPECT_EQ(TestRun(tasks).Run(kLater, "x").elapsed(), absl::Hours(8)); }

// guide: sleep-as-told
inline constexpr flux::Workflow<std::string(std::string, int64_t)> kWhenDue{
    "when-due", [](flux::Graph& g, flux::Value<std::string> chart, flux::Value<int64_t> wait_ms) {
      auto due = g.SleepMilliseconds(wait_ms);
      return g.Call(kPublish, chart).After(due);
    }};
// guide end

TEST_F(GuideTest, SleepAsTold) {
  const auto outcome = TestRun(tasks).Run(kWhenDue, "x", 90'000);
  EXPECT_EQ(*outcome, "http://x");
  EXPECT_EQ(outcome.elapsed(), absl::Seconds(90));
}

// guide: if
inline constexpr flux::Workflow<std::string(Page)> kMaybeCode{
    "maybe-code", [](flux::Graph& g, flux::Value<Page> page) {
      auto blank = g.Call(kIsBlank, page);
      return g.If(
          blank, [&] { return "nothing"; }, [&] { return g.Call(kCode, page); });
    }};
// guide end

TEST_F(GuideTest, If) {
  EXPECT_EQ(*TestRun(tasks).Run(kMaybeCode, Page{1, " "}), "nothing");
  EXPECT_EQ(*TestRun(tasks).Run(kMaybeCode, Page{1, "x"}), "xx");
}

// guide: switch
inline constexpr flux::Workflow<std::string(std::string, Page)> kByKind{
    "by-kind", [](flux::Graph& g, flux::Value<std::string> kind, flux::Value<Page> page) {
      return g.Switch(kind)
          .Case("scan", [&] { return g.Call(kCode, page); })
          .Case("text", [&] { return page.Field(&Page::text); })
          .Default([&] { return g.Fail(kRejected, "a kind nobody knows"); });
    }};
// guide end

TEST_F(GuideTest, Switch) {
  EXPECT_EQ(*TestRun(tasks).Run(kByKind, "scan", Page{1, "x"}), "xx");
  EXPECT_EQ(*TestRun(tasks).Run(kByKind, "text", Page{1, "x"}), "x");
  EXPECT_TRUE(kRejected.Is(TestRun(tasks).Run(kByKind, "film", Page{1, "x"}).status()));
}

// guide: loop
inline constexpr flux::Task<int64_t(int64_t)> kImprove{"charts.improve"};
inline constexpr flux::Task<bool(int64_t)> kGoodEnough{"charts.good_enough"};
inline constexpr flux::Workflow<int64_t(int64_t)> kRefine{
    "refine", [](flux::Graph& g, flux::Value<int64_t> draft) {
      return g.Loop(draft, [&](flux::Value<int64_t> current) {
        auto next = g.Call(kImprove, current);
        return g.Until(g.Call(kGoodEnough, next), next);
      });
    }};
// guide end

TEST_F(GuideTest, Loop) {
  tasks.Register(kImprove, [](int64_t n) { return n * 2; });
  tasks.Register(kGoodEnough, [](int64_t n) { return n > 100; });
  EXPECT_EQ(*TestRun(tasks).Run(kRefine, 3), 192);
}

// guide: event
inline constexpr flux::Event<bool> kApproved{"approved"};
inline constexpr flux::Workflow<std::string(std::string)> kReviewed{
    "reviewed", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto approved = g.WaitEvent(kApproved).Timeout(absl::Hours(48)).Default(false);
      return g.If(
          approved, [&] { return g.Call(kPublish, chart); },
          [&] { return g.Fail(kRejected, "the reviewer said no, or nothing"); });
    }};
// guide end

TEST_F(GuideTest, WaitEvent) {
  EXPECT_EQ(*TestRun(tasks).SendEvent(kApproved, true).Run(kReviewed, "x"), "http://x");
  EXPECT_TRUE(kRejected.Is(TestRun(tasks).Run(kReviewed, "x").status()));
}

// guide: events-in-turns
inline constexpr flux::Event<int64_t> kOffer{"offer"};
inline constexpr flux::Task<int64_t(int64_t, int64_t)> kBetter{"charts.better"};
inline constexpr flux::Workflow<int64_t()> kBestOfThree{
    "best-of-three", [](flux::Graph& g) {
      return g
          .Loop(
              0,
              [&](flux::Value<int64_t> best) { return g.Call(kBetter, best, g.WaitEvent(kOffer)); })
          .Turns(3);
    }};
// guide end

TEST_F(GuideTest, EventsInTurns) {
  tasks.Register(kBetter, [](int64_t a, int64_t b) { return std::max(a, b); });
  TestRun run(tasks);
  run.SendEvent(kOffer, 5).SendEvent(kOffer, 9).SendEventAfter(absl::Hours(1), kOffer, 7);
  EXPECT_EQ(*run.Run(kBestOfThree), 9);
}

// guide: child
inline constexpr flux::Workflow<std::string(std::vector<std::string>)> kAllCharts{
    "all-charts", [](flux::Graph& g, flux::Value<std::vector<std::string>> charts) {
      auto coded = g.Map(charts, [&](flux::Value<std::string> chart) {
        return g.Child(kCodeChart, chart)
            .WorkflowId(chart)
            .ParentClose(flux::ParentClose::kTerminate);
      });
      return g.Call(kMerge, coded);
    }};
// guide end

TEST_F(GuideTest, Child) {
  const auto outcome = TestRun(tasks).Run(kAllCharts, std::vector<std::string>{"ab", "c"});
  EXPECT_EQ(*outcome, "aabbcc");
  ASSERT_EQ(outcome.children().size(), 2u);
  EXPECT_EQ(outcome.children()[1].workflow_id, "c");
}

// guide: emit
inline constexpr flux::Workflow<void(std::string)> kReminder{
    "reminder", [](flux::Graph& g, flux::Value<std::string> workflow_id) {
      auto sent = g.Emit(kApproved, workflow_id, true).Delay(absl::Hours(24));
      sent.Catch({flux::errors::kNotFound, flux::errors::kRefused}, [&] {});  // it has closed
    }};
// guide end

TEST_F(GuideTest, Emit) {
  const auto outcome = TestRun(tasks).Run(kReminder, "chart-17");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(outcome.emissions().size(), 1u);
  EXPECT_EQ(outcome.emissions()[0].workflow_id, "chart-17");
}

// guide: child-detached
inline constexpr flux::Workflow<std::string(std::string)> kWatched{
    "watched", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto reminder = g.Child(kReminder, chart).Detached();  // goes on when this one has closed
      return reminder.Field(&flux::StartedChild::workflow_id);
    }};
// guide end

TEST_F(GuideTest, ChildDetached) {
  const auto outcome = TestRun(tasks).Run(kWatched, "chart-17");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome.elapsed(), absl::ZeroDuration());
  ASSERT_EQ(outcome.children().size(), 1u);
  EXPECT_EQ(outcome.children()[0].workflow, "reminder");
  EXPECT_EQ(outcome.children()[0].workflow_id, *outcome);
}

// guide: catch
inline constexpr flux::Workflow<std::string(std::string)> kCareful{
    "careful", [](flux::Graph& g, flux::Value<std::string> chart) {
      return g.Block([&] { return g.Call(kMerge, g.Map(g.Call(kSplit, chart), kCode)); })
          .Catch({kBadPage}, [&](flux::Value<flux::Failure> failure) {
            return failure.Field(&flux::Failure::message);
          });
    }};
// guide end

TEST_F(GuideTest, Catch) {
  EXPECT_EQ(*TestRun(tasks).Run(kCareful, "ab"), "aabb");
  EXPECT_EQ(*TestRun(tasks).Run(kCareful, "a!"), "page 1");
}

// guide: skip
inline constexpr flux::Workflow<std::string(std::string)> kLabelled{
    "labelled", [](flux::Graph& g, flux::Value<std::string> text) {
      auto price = g.Call(kPrice, text);   // may answer flux::Skip
      return g.Call(kLabel, text, price);  // its second parameter is a std::optional
    }};
// guide end

TEST_F(GuideTest, Skip) {
  EXPECT_EQ(*TestRun(tasks).Run(kLabelled, "abc"), "abc 3");
  EXPECT_EQ(*TestRun(tasks).Run(kLabelled, ""), " for free");
}

// guide: skip-branch
inline constexpr flux::Workflow<std::string(std::string)> kNoBlanks{
    "no-blanks", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto codes = g.Map(g.Call(kSplit, chart), [&](flux::Value<Page> page) {
        return g.If(
            g.Call(kIsBlank, page), [&] { return g.Skip(); }, [&] { return g.Call(kCode, page); });
      });
      return g.Call(kMerge, codes);
    }};
// guide end

TEST_F(GuideTest, SkipBranch) { EXPECT_EQ(*TestRun(tasks).Run(kNoBlanks, "a b"), "aabb"); }

// guide: execution-timeout
inline constexpr flux::Workflow<std::string(std::string)> kThisWeek{
    "this-week",
    {.execution_timeout = absl::Hours(7 * 24)},
    [](flux::Graph& g, flux::Value<std::string> chart) {
      auto approved = g.WaitEvent(kApproved);
      return g.Call(kPublish, chart).After(approved);
    }};
// guide end

TEST_F(GuideTest, ExecutionTimeout) {
  TestRun run(tasks);
  const auto late = run.Run(kThisWeek, "x");
  EXPECT_TRUE(flux::errors::kExecutionTimeout.Is(late.status())) << late.status();
  EXPECT_EQ(late.elapsed(), absl::Hours(7 * 24));
  EXPECT_EQ(*run.SendEventAfter(absl::Hours(1), kApproved, true).Run(kThisWeek, "x"), "http://x");
}

// guide: undo
inline constexpr flux::Workflow<std::string(std::string)> kTrial{
    "trial", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto where = g.Call(kPublish, chart).OnUndo(kUnpublish);  // called with chart and where
      auto kept = g.WaitEvent(kApproved).After(where);
      return g.If(
          kept, [&] { return where; }, [&] { return g.Fail(kRejected, "taken back"); });
    }};
// guide end

TEST_F(GuideTest, Undo) {
  EXPECT_EQ(*TestRun(tasks).SendEvent(kApproved, true).Run(kTrial, "x"), "http://x");
  EXPECT_THAT(unpublished, ElementsAre());
  const auto outcome = TestRun(tasks).SendEvent(kApproved, false).Run(kTrial, "x");
  EXPECT_TRUE(kRejected.Is(outcome.status()));
  EXPECT_THAT(unpublished, ElementsAre("http://x"));
}

// guide: park
inline constexpr flux::Workflow<std::string(std::string)> kStubborn{
    "stubborn", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto where = g.Call(kPublish, chart).OnExhausted(flux::kPark);
      auto price = g.Call(kPrice, chart);  // goes on meanwhile
      return g.Call(kAsk, where, price);
    }};
// guide end

TEST_F(GuideTest, Park) {
  const auto outcome = TestRun(tasks).FailAlways(kPublish, kBusy("full")).Run(kStubborn, "x");
  EXPECT_TRUE(outcome.stuck());
  EXPECT_EQ(outcome.state("charts.price"), "completed");
}

// guide: join
inline constexpr flux::Workflow<std::string(std::string)> kCheapest{
    "cheapest", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto price = g.Call(kPrice, chart);
      auto a = g.Call(kAsk, "a.example", price).Named("ask a");
      auto b = g.Call(kAsk, "b.example", price).Named("ask b");
      auto c = g.Call(kAsk, "c.example", price).Named("ask c");
      return g.Call(kMerge, g.Join(a, b, c).First(2).TolerateFailures(1));
    }};
// guide end

TEST_F(GuideTest, Join) {
  const auto outcome = TestRun(tasks).FailTimes(kAsk, 1, kBadPage("closed")).Run(kCheapest, "x");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, "b.example:1c.example:1");
}

// guide: map-map
inline constexpr flux::Workflow<std::string(std::string)> kAllPublished{
    "all-published", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto codes = g.Map(g.Call(kSplit, chart), kCode);
      auto places = g.Map(codes, kPublish);  // an item a code, once all codes are there
      return g.Call(kMerge, places);
    }};
// guide end

TEST_F(GuideTest, MapMap) {
  EXPECT_EQ(*TestRun(tasks).Run(kAllPublished, "ab"), "http://aahttp://bb");
}

// guide: map-some
inline constexpr flux::Workflow<std::string(std::string)> kMostPages{
    "most-pages", [](flux::Graph& g, flux::Value<std::string> chart) {
      auto codes = g.Map(g.Call(kSplit, chart), kCode).TolerateFailureShare(0.25);
      return g.Call(kMerge, codes);
    }};
// guide end

TEST_F(GuideTest, MapSome) {
  EXPECT_EQ(*TestRun(tasks).Run(kMostPages, "abc!"), "aabbcc");
  EXPECT_TRUE(kBadPage.Is(TestRun(tasks).Run(kMostPages, "ab!!").status()));
}

// guide: map-first
inline constexpr flux::Workflow<std::string(std::vector<std::string>, int64_t)> kFirstOffers{
    "first-offers",
    [](flux::Graph& g, flux::Value<std::vector<std::string>> shops, flux::Value<int64_t> price) {
      auto offers = g.Map(shops, [&](flux::Value<std::string> shop) {
                       return g.Call(kAsk, shop, price);
                     }).First(2);
      return g.Call(kMerge, offers);
    }};
// guide end

TEST_F(GuideTest, MapFirst) {
  // The first shop asks to be tried again later; by then the other two have answered.
  const auto outcome = TestRun(tasks)
                           .FailTimes(kAsk, 1, kBusy("later"))
                           .Run(kFirstOffers, std::vector<std::string>{"a", "b", "c"}, 5);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, "b:5c:5");
  EXPECT_EQ(outcome.elapsed(), absl::ZeroDuration());
}

// guide: pages
inline constexpr flux::Task<flux::Page<Page>(std::string)> kListPages{"charts.list_pages"};
inline constexpr flux::Workflow<std::string()> kWholeArchive{
    "whole-archive", [](flux::Graph& g) {
      auto codes = g.MapPages(kListPages, /*first_cursor=*/"", kCode).MaxParallel(500);
      return g.Call(kMerge, codes);
    }};
// guide end

TEST_F(GuideTest, Pages) {
  // guide: list-pages
  tasks.Register(kListPages, [](const std::string& cursor) {
    flux::Page<Page> page;
    const int first = cursor.empty() ? 0 : std::stoi(cursor);
    for (int i = first; i < first + 2; ++i) page.items.push_back({i, std::to_string(i)});
    if (first < 4) page.next = std::to_string(first + 2);  // none: this was the last page
    return page;
  });
  // guide end
  const auto outcome = TestRun(tasks).Run(kWholeArchive);
  EXPECT_EQ(*outcome, "001122334455");
  EXPECT_EQ(outcome.attempts(kListPages), 3);
}

// guide: limit-key
inline constexpr flux::Workflow<std::string(Page)> kGentle{
    "gentle", [](flux::Graph& g, flux::Value<Page> page) {
      return g.Call(kCode, page).Queue("nlp").LimitKey(&Page::number);
    }};
// guide end

TEST_F(GuideTest, LimitKey) { EXPECT_EQ(*TestRun(tasks).Run(kGentle, Page{1, "x"}), "xx"); }

inline constexpr flux::Workflow<std::string(std::string)> kPlanned{
    "planned", [](flux::Graph& g, flux::Value<std::string> chart) { return g.Call(kPlan, chart); }};

TEST_F(GuideTest, Continue) {
  // guide: continue
  tasks.Register(kPlan, [](const std::string& chart) -> flux::Outcome<std::string> {
    if (chart.empty()) return "nothing to do";
    return flux::Continue<std::string>(
        [&](flux::Graph& g, flux::Value<std::string> whole) {
          std::vector<flux::Value<std::string>> parts;
          for (size_t i = 0; i < chart.size(); ++i) parts.push_back(g.Call(kPublish, whole));
          return g.Call(kMerge, g.Join(parts));
        },
        chart);
  });
  // guide end
  EXPECT_EQ(*TestRun(tasks).Run(kPlanned, ""), "nothing to do");
  EXPECT_EQ(*TestRun(tasks).Run(kPlanned, "ab"), "http://abhttp://ab");
}

inline constexpr flux::Task<std::string(std::string)> kReceive{"charts.receive"};
// guide: step-labels
inline constexpr flux::Workflow<std::string(std::string)> kReceived{
    "received", [](flux::Graph& g, flux::Value<std::string> chart) {
      return g.Call(kReceive, chart).Label("team", "records").Label("scanner", "any");
    }};
// guide end

TEST_F(GuideTest, Labels) {
  // guide: labels
  tasks.Register(kReceive, [](flux::TaskContext& context, const std::string& chart) {
    context.SetLabel("customer", chart.substr(0, 2)).IgnoreError();
    context.SetStepLabel("scanner", "b2").IgnoreError();
    return chart;
  });
  // guide end
  const auto outcome = TestRun(tasks).Run(kReceived, "acme-17");
  EXPECT_EQ(outcome.labels().at("customer"), "ac");
  EXPECT_EQ(outcome.attempts()[0].labels.at("scanner"), "b2");
}

TEST_F(GuideTest, Testing) {
  // guide: testing
  TestRun run(tasks);  // flux::testing::TestRun
  run.FailTimes(kPublish, 2, kBusy("later"));
  run.SendEventAfter(absl::Hours(3), kApproved, true);
  auto outcome = run.Run(kReviewed, "chart-17.txt");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome.attempts(kPublish), 3);
  EXPECT_EQ(outcome.elapsed(), absl::Hours(3) + absl::Seconds(1 + 2));  // and two backoffs
  EXPECT_THAT(outcome.order(), ElementsAre("approved", "if.charts.publish", "if"));
  // guide end
}

// ---- the guide itself
// ------------------------------------------------------------------------------------------

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return text.str();
}

// The regions of a source by name, without the indentation they have in common.
std::map<std::string, std::string> Regions(const std::string& source) {
  std::map<std::string, std::string> regions;
  std::istringstream lines(source);
  std::string line;
  std::string name;
  size_t indent = 0;
  while (std::getline(lines, line)) {
    const size_t begin = line.find_first_not_of(' ');
    const std::string text = begin == std::string::npos ? "" : line.substr(begin);
    if (text.rfind("// guide: ", 0) == 0) {
      name = text.substr(10);
      indent = begin;
      EXPECT_FALSE(regions.contains(name)) << name << " is there twice";
      regions[name] = "";
    } else if (text == "// guide end") {
      name.clear();
    } else if (!name.empty()) {
      regions[name] += (text.empty() ? "" : line.substr(std::min(indent, begin))) + "\n";
    }
  }
  return regions;
}

// The guide's blocks that follow "<!-- tested: NAME -->".
std::map<std::string, std::string> Blocks(const std::string& guide) {
  std::map<std::string, std::string> blocks;
  const std::string mark = "<!-- tested: ";
  for (size_t at = guide.find(mark); at != std::string::npos; at = guide.find(mark, at + 1)) {
    const size_t begin = at + mark.size();
    const std::string name = guide.substr(begin, guide.find(" -->", begin) - begin);
    const std::string fence = "```cpp\n";
    const size_t code = guide.find(fence, begin) + fence.size();
    blocks[name] = guide.substr(code, guide.find("```", code) - code);
  }
  return blocks;
}

TEST(Guide, ItsExamplesAreTheTestedOnes) {
  std::map<std::string, std::string> regions = Regions(ReadFile(GUIDE_TEST_SOURCE));
  for (const char* source : {GUIDE_CHARTS_SOURCE, GUIDE_CLIENT_TEST_SOURCE}) {
    for (auto& [name, code] : Regions(ReadFile(source))) {
      EXPECT_TRUE(regions.emplace(name, code).second) << name << " is there twice";
    }
  }
  const std::map<std::string, std::string> blocks = Blocks(ReadFile(GUIDE_PATH));
  EXPECT_GT(regions.size(), 15u);
  for (const auto& [name, code] : regions) {
    ASSERT_TRUE(blocks.contains(name)) << "docs/GUIDE.md lacks the example " << name;
    EXPECT_EQ(blocks.at(name), code) << "docs/GUIDE.md: the example " << name;
  }
  for (const auto& [name, code] : blocks) {
    EXPECT_TRUE(regions.contains(name)) << "no test has the example " << name;
  }
}

}  // namespace
}  // namespace charts
