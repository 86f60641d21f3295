"""The policy-training methods of the field (SFT, RLHF, MORLHF, MODPO, RiC) as thin configurations of TRL and PEFT."""
