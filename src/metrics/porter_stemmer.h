// Porter's suffix stripping (1980) with the extensions of NLTK, which rouge-score stems with.
#pragma once

#include <string>

namespace switchyard {

std::string porter_stem(std::string word);  // `word` in lower case ASCII

}  // namespace switchyard
