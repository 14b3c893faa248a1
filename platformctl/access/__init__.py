"""Who is calling, and what they may do: identities, tokens, certificates, policy, rates. Pure: decisions, no IO."""
