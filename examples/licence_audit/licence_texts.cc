#include <array>
#include <optional>
#include <set>
#include <utility>

#include "licences.h"
#include "text.h"

namespace licence_audit {
namespace {

// The version that `text` names first: "version 2", "v2.1", "version 2.1".
std::string NamedVersion(std::string_view text) {
  constexpr std::array<std::string_view, 4> kMarks = {"version ", "versions ", " v", "version-"};
  std::size_t best = std::string_view::npos;
  std::string version;
  for (const std::string_view mark : kMarks) {
    for (std::size_t at = text.find(mark); at != std::string_view::npos;
         at = text.find(mark, at + 1)) {
      if (at >= best) break;
      std::string found = LeadingVersion(text.substr(at + mark.size()));
      if (found.empty()) continue;
      best = at;
      version = std::move(found);
      break;
    }
  }
  return version;
}

bool SaysOrLater(std::string_view text) {
  constexpr std::array<std::string_view, 8> kPhrases = {
      "any later version", "or later",           "or newer",          "or any later",
      "or higher",         "or, at your option", "any newer version", "or (at your opinion)"};
  return std::any_of(kPhrases.begin(), kPhrases.end(),
                     [&](std::string_view phrase) { return Contains(text, phrase); });
}

struct GnuMention {
  GnuFamily family;
  std::size_t begin;
  std::size_t end;
};

std::vector<GnuMention> FindGnuMentions(std::string_view text) {
  struct Title {
    std::string_view words;
    GnuFamily family;
  };
  static constexpr std::array<Title, 11> kTitles = {{
      {"gnu general public licen", GnuFamily::kGpl},
      {"gnu public licen", GnuFamily::kGpl},
      {"gnu gpl", GnuFamily::kGpl},
      {"lesser general public licen", GnuFamily::kLgpl},
      {"lesser gnu general public licen", GnuFamily::kLgpl},
      {"library general public licen", GnuFamily::kLgpl},
      {"lesser gnu public licen", GnuFamily::kLgpl},
      {"gnu lgpl", GnuFamily::kLgpl},
      {"gnu lesser public licen", GnuFamily::kLgpl},
      {"affero general public licen", GnuFamily::kAgpl},
      {"free documentation licen", GnuFamily::kGfdl},
  }};
  std::vector<GnuMention> mentions;
  for (const Title& title : kTitles) {
    for (std::size_t at = text.find(title.words); at != std::string_view::npos;
         at = text.find(title.words, at + 1)) {
      std::size_t end = at + title.words.size();
      while (end < text.size() && IsWord(text[end])) ++end;
      // "gnu general …" is also the tail of "lesser gnu general …".
      if (title.words.starts_with("gnu general") && at >= 7 &&
          text.substr(at - 7, 7) == "lesser ") {
        continue;
      }
      mentions.push_back({title.family, at, end});
    }
  }
  std::sort(mentions.begin(), mentions.end(),
            [](const GnuMention& a, const GnuMention& b) { return a.begin < b.begin; });
  return mentions;
}

// Whether the words before a mention grant something under it, rather than point at its text.
bool IsGrant(std::string_view before) {
  constexpr std::array<std::string_view, 6> kPointers = {"copy of the",     "see the",
                                                         "text of the",     "text of version",
                                                         "received a copy", "details of the"};
  constexpr std::array<std::string_view, 13> kGrants = {
      "terms of the",     "under the", "covered by the", "terms of either", "according to",
      "licensed under",   "with the",  "subject to the", "released under",  "license:",
      "terms of version", "of either", "under version"};
  const auto last = [&](const auto& phrases) {
    std::size_t best = 0;
    for (const std::string_view phrase : phrases) {
      const std::size_t at = before.rfind(phrase);
      if (at != std::string_view::npos) best = std::max(best, at + phrase.size());
    }
    return best;
  };
  return last(kGrants) > last(kPointers);
}

// The version of a family's first /usr/share/common-licenses reference; nullopt if the text has
// none.
std::optional<std::string> CommonLicenceVersion(std::string_view text, std::string_view family) {
  constexpr std::string_view kDirectory = "common-licenses/";
  std::optional<std::string> found;
  for (std::size_t at = text.find(kDirectory); at != std::string_view::npos;
       at = text.find(kDirectory, at + 1)) {
    std::string_view name = text.substr(at + kDirectory.size());
    if (!name.starts_with(family)) continue;
    name.remove_prefix(family.size());
    if (!name.empty() && IsWord(name.front())) continue;
    if (!name.empty() && name.front() == '-') name.remove_prefix(1);
    std::string version = LeadingVersion(name);
    if (!version.empty()) return version;
    found = "";
  }
  return found;
}

void RecogniseGnu(std::string_view text, std::set<std::string>& found) {
  constexpr std::size_t kBefore = 120;
  constexpr std::size_t kAfter = 260;
  const std::vector<GnuMention> mentions = FindGnuMentions(text);
  const std::array<std::pair<GnuFamily, std::string_view>, 4> families = {
      {{GnuFamily::kGpl, "gpl"},
       {GnuFamily::kLgpl, "lgpl"},
       {GnuFamily::kAgpl, "agpl"},
       {GnuFamily::kGfdl, "gfdl"}}};
  for (const auto& [family, name] : families) {
    const std::optional<std::string> reference = CommonLicenceVersion(text, name);
    bool granted = false;
    bool mentioned = false;
    bool no_invariants = family == GnuFamily::kGfdl && Contains(text, "no invariant sections");
    std::string title_version;
    for (std::size_t i = 0; i < mentions.size(); ++i) {
      const GnuMention& mention = mentions[i];
      if (mention.family != family) continue;
      mentioned = true;
      const std::size_t from = mention.begin - std::min(mention.begin, kBefore);
      const std::size_t floor = i == 0 ? 0 : std::min(mentions[i - 1].end, mention.begin);
      const std::string_view before =
          text.substr(std::max(from, floor), mention.begin - std::max(from, floor));
      // What follows belongs to this mention only up to the next one.
      std::size_t until = std::min(mention.end + kAfter, text.size());
      if (i + 1 < mentions.size())
        until = std::min(until, std::max(mentions[i + 1].begin, mention.end));
      const std::string_view after = text.substr(mention.end, until - mention.end);
      std::string version = NamedVersion(after);
      if (!IsGrant(before)) {
        if (title_version.empty()) title_version = std::move(version);
        continue;
      }
      const std::size_t near = before.size() - std::min<std::size_t>(before.size(), 60);
      const std::string version_before = NamedVersion(before.substr(near));
      bool or_later = SaysOrLater(after);
      if (!version_before.empty() && Contains(before.substr(near), " of the")) {
        version = version_before;
        or_later = or_later || SaysOrLater(before.substr(near));
      }
      if (version.empty()) version = LeadingVersion(Trim(after));
      if (version.empty() && reference.has_value()) version = *reference;
      std::string id = GnuIdentifier(family, version, or_later, no_invariants);
      if (id.empty()) continue;
      granted = true;
      found.insert(std::move(id));
    }
    if (granted || (!mentioned && !reference.has_value())) continue;
    // Without a grant, only a text that points at the licence and nothing else tells us of it.
    if (reference.has_value()) {
      std::string id = GnuIdentifier(family, reference->empty() ? title_version : *reference,
                                     SaysOrLater(text), no_invariants);
      if (!id.empty()) found.insert(std::move(id));
    } else if (found.empty() && !title_version.empty()) {
      std::string id = GnuIdentifier(family, title_version, false, no_invariants);
      if (!id.empty()) found.insert(std::move(id));
    }
  }
}

// One wording: all of `all` and none of `none` stand in the text.
struct Wording {
  std::string_view identifier;
  std::array<std::string_view, 3> all;
  std::array<std::string_view, 2> none = {};
};

constexpr std::string_view kMitGrant =
    "permission is hereby granted, free of charge, to any person obtaining a copy";
constexpr std::string_view kBsdGrant = "redistribution and use in source and binary forms";

constexpr Wording kWordings[] = {
    {"Apache-2.0", {"apache license", "version 2.0"}, {"llvm exception"}},
    {"Apache-2.0", {"apache licen", " v. 2.0"}, {}},
    {"Apache-2.0", {"apache.org/licenses/license-2.0"}, {"llvm exception"}},
    {"Apache-2.0", {"common-licenses/apache-2.0"}, {"llvm exception"}},
    {"Apache-2.0", {"licensed under the apache license 2.0"}, {}},
    {"Apache-2.0 WITH LLVM-exception", {"apache license", "llvm exception"}, {}},
    {"Apache-1.1", {"apache software license", "version 1.1"}, {}},
    {"AFL-2.1", {"academic free license version 2.1"}, {}},
    {"AFL-2.1", {"academic free license", "version 2.1"}, {}},
    {"MIT", {kMitGrant, "permission notice"}, {"silicon graphics"}},
    {"MIT", {"licensed under the mit license"}, {}},
    {"MIT", {"under the terms of the mit license"}, {}},
    {"MIT", {"released under the mit license"}, {}},
    {"MIT-open-group",
     {"permission to use, copy, modify, distribute, and sell this software and its documentation",
      "the open group"},
     {}},
    {"HPND-sell-variant",
     {"permission to use, copy, modify, distribute, and sell this software and its documentation",
      "granted without fee"},
     {"the open group"}},
    {"HPND",
     {"permission to use, copy, modify, and distribute this software and its documentation",
      "fee is hereby granted"},
     {"without a written agreement"}},
    {"PostgreSQL",
     {"permission to use, copy, modify, and distribute this software and its documentation",
      "without a written agreement is hereby granted"},
     {}},
    {"ISC",
     {"permission to use, copy, modify, and distribute this software for any purpose",
      "with or without fee is hereby granted, provided that the above copyright notice"},
     {}},
    {"ISC",
     {"permission to use, copy, modify, and/or distribute this software for any purpose",
      "with or without fee is hereby granted, provided that the above copyright notice"},
     {}},
    {"0BSD",
     {"permission to use, copy, modify, and/or distribute this software for any purpose with or "
      "without fee is hereby granted. the software"},
     {}},
    {"BSD-4-Clause",
     {kBsdGrant, "all advertising materials mentioning"},
     {"openssl project", "openssl toolkit"}},
    {"OpenSSL", {kBsdGrant, "for use in the openssl toolkit"}, {}},
    {"BSD-3-Clause", {kBsdGrant, "endorse or promote"}, {"all advertising materials"}},
    {"BSD-2-Clause",
     {kBsdGrant, "in binary form must reproduce"},
     {"endorse or promote", "all advertising materials"}},
    {"BSD-2-Clause",
     {kBsdGrant, "following disclaimer in the documentation"},
     {"endorse or promote", "all advertising materials"}},
    {"BSD-1-Clause",
     {kBsdGrant, "source code must retain"},
     {"in binary form must reproduce", "following disclaimer in the documentation"}},
    {"BSD-3-Clause", {"distributed under the terms of the \"bsd\" licen"}, {}},
    {"BSD-3-Clause", {"common-licenses/bsd"}, {}},
    {"Zlib", {"provided 'as-is'", "must be plainly marked as such"}, {}},
    {"Zlib", {"without any express or implied warranty", "must be plainly marked as such"}, {}},
    {"BSL-1.0", {"boost software license"}, {}},
    {"MPL-1.1", {"mozilla public license", "version 1.1"}, {}},
    {"MPL-2.0", {"mozilla public license", "2.0"}, {}},
    {"MPL-2.0", {"mozilla.org/mpl/2.0"}, {}},
    {"MPL-1.1", {"common-licenses/mpl-1.1"}, {}},
    {"MPL-2.0", {"common-licenses/mpl-2.0"}, {}},
    {"Artistic-2.0", {"artistic license 2.0"}, {}},
    {"Artistic-2.0", {"artistic license", "version 2.0"}, {"apache license", "mozilla public"}},
    {"Artistic-1.0-Perl OR GPL-1.0-or-later", {"same terms as perl"}, {}},
    {"Artistic-1.0-Perl", {"artistic license"}, {"artistic license 2.0", "same terms as perl"}},
    {"Artistic-1.0-Perl", {"common-licenses/artistic"}, {"same terms as perl"}},
    {"PSF-2.0", {"psf license agreement"}, {}},
    {"PSF-2.0", {"python software foundation license"}, {}},
    {"CNRI-Python", {"cnri license agreement"}, {}},
    {"CC0-1.0", {"cc0 1.0"}, {}},
    {"CC0-1.0", {"creative commons cc0"}, {}},
    {"CC0-1.0", {"creative commons zero"}, {}},
    {"CC0-1.0", {"common-licenses/cc0-1.0"}, {}},
    {"CC-BY-SA-4.0", {"creative commons attribution-sharealike 4.0"}, {}},
    {"CC-BY-SA-3.0", {"creative commons attribution-sharealike 3.0"}, {}},
    {"CC-BY-4.0", {"creative commons attribution 4.0"}, {}},
    {"CC-BY-3.0", {"creative commons attribution 3.0"}, {}},
    {kPublicDomain, {"in the public domain"}, {}},
    {kPublicDomain, {"into the public domain"}, {}},
    {kPublicDomain, {"to the public domain"}, {}},
    {kPublicDomain, {"public domain software"}, {}},
    {kPublicDomain, {"is public domain"}, {}},
    {kPublicDomain, {"are public domain"}, {}},
    {kPublicDomain, {"public-domain"}, {}},
    {"Unlicense", {"this is free and unencumbered software"}, {}},
    {"WTFPL", {"do what the fuck you want to public license"}, {}},
    {"Beerware", {"the beer-ware license"}, {}},
    {"TCL",
     {"existing copyright notices are retained in all copies", "verbatim in any distributions"},
     {}},
    {"curl",
     {"permission to use, copy, modify, and distribute this software for any purpose with or "
      "without fee is hereby granted, provided that",
      "daniel stenberg"},
     {}},
    {"bzip2-1.0.6", {"julian seward", "must not be misrepresented", "altered source versions"}, {}},
    {"Libpng", {"png reference library"}, {}},
    {"FTL", {"freetype project license"}, {}},
    {"FTL", {"the freetype license"}, {}},
    {"Unicode-DFS-2016", {"unicode data files"}, {}},
    {"ICU", {"icu license"}, {}},
    {"OFL-1.1", {"sil open font license"}, {}},
    {"EPL-1.0", {"eclipse public license", "1.0"}, {}},
    {"EPL-2.0", {"eclipse public license", "2.0"}, {}},
    {"CDDL-1.0", {"common development and distribution license"}, {}},
    {"FSFAP",
     {"copying and distribution of this file, with or without modification, are permitted in any "
      "medium"},
     {}},
    {"FSFULLR",
     {"gives unlimited permission to copy and/or distribute it, with or without modifications"},
     {}},
    {"FSFUL", {"gives unlimited permission to copy, distribute and modify"}, {}},
    {"Vim", {"vim license"}, {}},
    {"Vim", {"summary of the vim", "license"}, {}},
    {"Ruby", {"ruby license"}, {}},
    {"PHP-3.01", {"php license", "3.01"}, {}},
    {"LPPL-1.3c", {"latex project public license"}, {}},
    {"Latex2e",
     {"permission is granted to make and distribute verbatim copies of this manual"},
     {}},
    {"OLDAP-2.8", {"openldap public license"}, {}},
    {"Bitstream-Vera", {"bitstream vera"}, {}},
    {"Info-ZIP", {"info-zip", "license"}, {}},
    {"Sleepycat",
     {"redistributions in any form must be accompanied by information on how to obtain complete "
      "source"},
     {}},
    {"IJG", {"independent jpeg group"}, {}},
    {"NCSA", {"university of illinois/ncsa"}, {}},
    {"SGI-B-2.0", {"sgi free software license b"}, {}},
    {"W3C", {"w3c software notice and license"}, {}},
    {"W3C", {"w3c", "by obtaining, using and/or copying this work"}, {}},
    {"Linux-man-pages-copyleft",
     {"verbatim copies of this manual provided the copyright notice"},
     {"make and distribute verbatim copies of this manual"}},
    {"NTP",
     {"for any purpose with or without fee is hereby granted, provided that the above copyright "
      "notice appears in all copies and that both"},
     {}},
    {"Boehm-GC",
     {"permission is hereby granted to use or copy this program", "for any purpose"},
     {}},
    {"Boehm-GC",
     {"permission is hereby granted to copy this", "provided the above notices are retained"},
     {}},
    {"RSA-MD", {"rsa data security, inc. md5 message-digest algorithm"}, {}},
};

bool Matches(const Wording& wording, std::string_view text) {
  for (const std::string_view phrase : wording.all) {
    if (!phrase.empty() && !Contains(text, phrase)) return false;
  }
  for (const std::string_view phrase : wording.none) {
    if (!phrase.empty() && Contains(text, phrase)) return false;
  }
  return true;
}

}  // namespace

std::vector<std::string> RecogniseLicences(std::string_view text) {
  std::string collapsed;
  AppendCollapsed(text, kStatementBytesMax, collapsed);
  collapsed = Lower(collapsed);
  // Comment marks of a quoted source file would break phrases.
  std::string lower;
  lower.reserve(collapsed.size());
  for (std::size_t i = 0; i < collapsed.size(); ++i) {
    const bool mark = (collapsed[i] == '*' || collapsed[i] == '#' || collapsed[i] == '|') &&
                      (i == 0 || collapsed[i - 1] == ' ') &&
                      (i + 1 == collapsed.size() || collapsed[i + 1] == ' ');
    if (mark || (collapsed[i] == ' ' && !lower.empty() && lower.back() == ' ')) continue;
    lower += collapsed[i];
  }
  std::set<std::string> found;
  RecogniseGnu(lower, found);
  for (const Wording& wording : kWordings) {
    if (Matches(wording, lower)) found.emplace(wording.identifier);
  }
  return {found.begin(), found.end()};
}

}  // namespace licence_audit
