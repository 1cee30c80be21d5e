// Documents to codes: a map with its own retries and queue, a decision, and compensation. Runs in
// this process, without a coordinator, the way a unit test would; the same workflow can be started
// on a coordinator unchanged.
#include <algorithm>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "flux/inline_runner.h"
#include "flux/struct.h"
#include "flux/workflow.h"

struct Page {
  int number = 0;
  std::string text;
};
FLUX_STRUCT(Page, number, text)

struct Codes {
  int page = 0;
  std::vector<std::string> codes;
};
FLUX_STRUCT(Codes, page, codes)

struct Report {
  int pages = 0;
  std::vector<std::string> codes;
};
FLUX_STRUCT(Report, pages, codes)

// The contract: what the client's and the workers' programs would share in a header.
inline constexpr flux::ErrorType kBadPage{"bad-page", {.non_retriable = true}};
inline constexpr flux::ErrorType kRejected{"rejected"};

inline constexpr flux::Task<std::string(std::string)> kStore{"charts.store"};
inline constexpr flux::Task<void(std::string, std::string)> kDiscard{"charts.discard"};
inline constexpr flux::Task<std::vector<Page>(std::string)> kSplit{
    "charts.split", {.timeout = absl::Minutes(5), .retry = {.max_attempts = 5}}};
inline constexpr flux::Task<Codes(Page)> kCode{"charts.code", {.non_retriable = {kBadPage}}};
inline constexpr flux::Task<bool(std::vector<Codes>)> kReview{"charts.review"};
inline constexpr flux::Task<Report(std::vector<Codes>)> kMerge{"charts.merge"};

inline constexpr flux::Workflow<Report(std::string)> kCodeChart{
    "code-chart", {.version = "2"}, [](flux::Graph& g, flux::Value<std::string> chart) {
      auto place = g.Call(kStore, chart).OnUndo(kDiscard);  // called with chart and place
      auto pages = g.Call(kSplit, chart).After(place);
      auto codes = g.Map(pages, [&](flux::Value<Page> page) {
                      return g.Call(kCode, page).Retry({.max_attempts = 3}).Queue("nlp");
                    }).MaxParallel(200);
      auto good = g.Call(kReview, codes);
      return g.If(
          good, [&] { return g.Call(kMerge, codes); },
          [&] { return g.Fail(kRejected, "the review found a page without codes"); });
    }};

std::string Store(const std::string& chart) { return "shelf/" + std::to_string(chart.size()); }

// Takes back what Store did, when the execution fails after it.
void Discard(const std::string& chart, const std::string& place) {
  std::cerr << "discarded " << chart.size() << " bytes from " << place << "\n";
}

// Words of capitals and digits stand for codes; a form feed ends a page.
std::vector<Page> Split(const std::string& chart) {
  std::vector<Page> pages;
  std::istringstream in(chart);
  for (std::string text; std::getline(in, text, '\f');) {
    pages.push_back({static_cast<int>(pages.size()) + 1, text});
  }
  return pages;
}

absl::StatusOr<Codes> Code(const Page& page) {
  if (page.text.empty()) return kBadPage("page " + std::to_string(page.number) + " is empty");
  Codes codes{page.number, {}};
  std::istringstream in(page.text);
  for (std::string word; in >> word;) {
    if (word.find_first_of("0123456789") != std::string::npos) codes.codes.push_back(word);
  }
  return codes;
}

bool Review(const std::vector<Codes>& pages) {
  return std::none_of(pages.begin(), pages.end(),
                      [](const Codes& page) { return page.codes.empty(); });
}

Report Merge(const std::vector<Codes>& pages) {
  Report report{static_cast<int>(pages.size()), {}};
  for (const Codes& page : pages) {
    report.codes.insert(report.codes.end(), page.codes.begin(), page.codes.end());
  }
  return report;
}

int main(int argc, char** argv) {
  flux::TaskSet tasks;
  tasks.Register(kStore, Store);
  tasks.Register(kDiscard, Discard);
  tasks.Register(kSplit, Split);
  tasks.Register(kCode, Code);
  tasks.Register(kReview, Review);
  tasks.Register(kMerge, Merge);

  const std::string chart =
      argc > 1 ? argv[1] : "fracture S52.5 of the arm\ffollow-up Z47.8 and cast R26";
  absl::StatusOr<Report> report = flux::InlineRunner(tasks).Run(kCodeChart, chart);
  if (!report.ok()) {
    std::cerr << report.status() << "\n";
    return 1;
  }
  std::cout << report->pages << " pages:";
  for (const std::string& code : report->codes) std::cout << " " << code;
  std::cout << "\n";
  return 0;
}
